"""What one process writes down of its tasks, and the next one reads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.user.journal import Journal
from endpoint.user.spool import Spool
from endpoint.worker.starts import may_begin

BODY = b'\x01{"message_type":"result"}'


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def fill(disk: Path) -> Path:
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                if file.write(b"x" * 4096) < 4096:
                    return path
            except OSError:
                return path


def test_starts_answers_and_ends_are_there_for_the_next_process(tmp_path):
    journal = Journal(tmp_path / "j")
    for task_id in ("begun", "answered", "done"):
        journal.submitted(task_id)
        assert journal.started(task_id)
    journal.answered("answered", BODY)
    journal.answered("done", BODY)
    journal.done("done")

    found = Journal(tmp_path / "j").found  # the first one was not closed: it was killed

    assert [len(found[task_id].starts) for task_id in ("begun", "answered")] == [1, 1]
    assert found["begun"].answer is None
    assert found["answered"].answer == BODY
    assert found["done"].done
    assert found["done"].answer is None


def test_what_was_found_is_found_again_until_it_is_done(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.started("t")
    for _ in range(3):
        journal = Journal(tmp_path / "j")
        assert len(journal.found["t"].starts) == 1
    journal.answered("t", BODY)
    journal.done("t")

    assert Journal(tmp_path / "j").found["t"].done


def test_a_line_that_is_cut_off_says_nothing_and_harms_no_other(tmp_path):
    journal = Journal(tmp_path / "j")
    with Path(journal.path).open("ab") as file:
        file.write(b"\nR cut 500 " + BODY)
    journal.started("next")
    with Path(journal.path).open("ab") as file:
        file.write(b"\nS also")

    found = Journal(tmp_path / "j").found

    assert list(found) == ["next"]


def test_segments_of_answered_tasks_are_removed_and_the_newest_is_kept(tmp_path):
    journal = Journal(tmp_path / "j", segment_bytes=2_000)
    journal.started("open")
    journal.answered("open", BODY)
    for number in range(200):
        journal.submitted(f"t{number}")
        journal.started(f"t{number}")
        journal.answered(f"t{number}", BODY)
        journal.done(f"t{number}")

    assert len(list((tmp_path / "j").glob("*.log"))) <= 4
    found = Journal(tmp_path / "j").found
    assert found["open"].answer == BODY
    assert found["t199"].done


def test_a_worker_notes_a_start_that_the_endpoint_reads(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.submitted("t")

    assert may_begin("t", journal.path)

    assert len(journal.refresh()["t"]) == 1


@pytest.mark.parametrize("end", ["gate", "successor"])
def test_a_worker_begins_nothing_when_its_endpoint_ends_or_has_a_successor(tmp_path, end):
    journal = Journal(tmp_path / "j")
    path = journal.path
    if end == "gate":
        journal.close_gate()
        assert not journal.started("t")
    else:
        Journal(tmp_path / "j")

    assert not may_begin("t", path)


def test_on_a_full_disk_nothing_begins_and_with_space_again_it_does(small_disk):
    journal = Journal(small_disk / "j", segment_bytes=4096)
    filler = fill(small_disk)
    while journal.started("filling"):  # the present segment has its space
        pass

    assert not journal.started("t")
    assert not may_begin("t", journal.path)
    assert not journal.has_space()
    assert journal.full_since is not None
    journal.answered("u", BODY)  # no error: it is in memory

    filler.unlink()
    assert journal.has_space()
    assert journal.full_since is None
    assert journal.started("t")
    journal.close()
    again = Journal(small_disk / "j", segment_bytes=4096)
    assert len(again.found["t"].starts) == 1
    again.close()


def test_a_task_in_the_spool_is_there_for_the_next_process_until_it_is_answered(tmp_path):
    Spool(tmp_path / "s").keep("t", {"task_uuid": "t", "n": 1}, b"\x01\n\nbody\n")

    [kept] = Spool(tmp_path / "s").tasks()
    assert (kept.headers, kept.body, kept.kept) == ({"task_uuid": "t", "n": 1}, b"\x01\n\nbody\n", True)
    kept.reject(requeue=True)
    assert len(list(Spool(tmp_path / "s").tasks())) == 1
    kept.ack()

    assert not list(Spool(tmp_path / "s").tasks())


def test_a_spool_without_space_is_an_error_that_leaves_nothing(small_disk):
    spool = Spool(small_disk / "s")
    fill(small_disk)

    with pytest.raises(OSError, match="No space"):
        spool.keep("t", {}, b"x" * 50_000)

    assert os.listdir(small_disk / "s") == []


def test_half_written_and_foreign_files_in_the_spool_are_no_tasks(tmp_path, caplog):
    Spool(tmp_path / "s")
    (tmp_path / "s" / "a.part").write_bytes(b"{")
    (tmp_path / "s" / "b").write_bytes(b"no json\nbody")

    assert list(Spool(tmp_path / "s").tasks()) == []
    assert not (tmp_path / "s" / "a.part").exists()
    assert (tmp_path / "s" / "b").exists()
    assert "can't be read" in caplog.text


def test_a_segment_that_is_used_again_says_nothing_of_its_earlier_use(tmp_path):
    journal = Journal(tmp_path / "j", segment_bytes=2_000)
    for number in range(300):
        journal.submitted(f"t{number}")
        journal.started(f"t{number}")
        journal.answered(f"t{number}", BODY)
        journal.done(f"t{number}")
    journal.started("last")

    found = Journal(tmp_path / "j").found

    assert all(one.done for task_id, one in found.items() if task_id != "last")
    assert len(found) < 100
    assert len(found["last"].starts) == 1


def test_answers_larger_than_a_segment_get_segments_of_their_own(tmp_path):
    journal = Journal(tmp_path / "j", segment_bytes=2_000)
    for number in range(20):
        journal.answered(f"t{number}", bytes([65 + number]) * (3_000 + number))
        if number % 2:
            journal.done(f"t{number}")

    found = Journal(tmp_path / "j").found

    assert [len(found[f"t{number}"].answer) for number in range(0, 20, 2)] == list(range(3_000, 3_020, 2))
    assert all(found[f"t{number}"].done for number in (15, 17, 19))


def test_a_line_that_was_being_written_when_the_process_was_killed_is_not_there(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.started("whole")
    segment = journal._current
    half = b"R half 100 "
    segment._map[segment._end + 1 : segment._end + len(half)] = half[1:]  # all but its first byte

    assert list(Journal(tmp_path / "j").found) == ["whole"]
