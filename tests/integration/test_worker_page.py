"""The page on which a worker process notes what it begins."""

from __future__ import annotations

import uuid
from pathlib import Path

from endpoint.user.journal import Journal
from endpoint.worker.starts import PAGE_LINES, Page


def test_the_next_journal_finds_what_a_worker_process_had_begun(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    page = Page(journal.new_page())
    begun = [str(uuid.uuid4()) for _ in range(3)]
    for task_id in begun:
        page.begin(task_id)

    assert set(journal.refresh()) == set(begun)
    assert [len(found.starts) for found in Journal(tmp_path / "journal").found.values()] == [1, 1, 1]
    assert not list((tmp_path / "journal").glob("*.page"))


def test_a_page_keeps_the_newest_starts_and_no_halves(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    path = journal.new_page()
    page = Page(path)
    begun = [str(uuid.uuid4()) for _ in range(PAGE_LINES + 10)]
    for task_id in begun:
        page.begin(task_id)

    content = bytearray(Path(path).read_bytes())
    content[0:1] = b"-"  # a process that was killed while it wrote there
    Path(path).write_bytes(content)

    assert set(journal.refresh()) == set(begun[10:]) - {begun[PAGE_LINES]}


def test_an_answered_task_needs_no_page(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    path = journal.new_page()
    task_id = str(uuid.uuid4())
    Page(path).begin(task_id)
    journal.answered(task_id, b"result")
    journal.done(task_id)

    assert journal.refresh() == {}
    journal.drop_page(path)
    journal.drop_page(path)
    assert not Path(path).exists()


def test_a_start_is_forgotten_with_its_answer_when_the_journal_needs_the_space(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", segment_bytes=4096)
    path = journal.new_page()
    page = Page(path)
    for number in range(50):
        task_id = str(uuid.uuid4())
        journal.submitted(task_id)
        page.begin(task_id)
        journal.begun_as(task_id, path, number)
        journal.answered(task_id, b"x" * 1000)
        journal.done(task_id)
    running = str(uuid.uuid4())
    page.begin(running)

    found = Journal(tmp_path / "journal").found

    assert [task_id for task_id, one in found.items() if not one.done] == [running]


def test_a_place_that_another_task_has_now_is_not_forgotten_with_the_one_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    path = journal.new_page()
    page = Page(path)
    first = str(uuid.uuid4())
    page.begin(first)
    journal.begun_as(first, path, 0)
    later = [str(uuid.uuid4()) for _ in range(PAGE_LINES)]
    for task_id in later:
        page.begin(task_id)

    journal.answered(first, b"late")
    journal.done(first)

    assert set(journal.refresh()) == set(later)
