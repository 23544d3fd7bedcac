"""One host with everything, on Debian 13: another systemd, another RabbitMQ, a newer Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.site_documents import HOST, secrets_of
from tests.support.site_looks import UNITS
from tests.support.site_story import Story, told_on

pytestmark = pytest.mark.timeout(900)  # whichever test is the first waits for the stages before its own


@pytest.fixture(scope="module")
def story(peer_sdk_newer_python: Path) -> Iterator[Story]:
    with told_on("trixie", peer_sdk_newer_python, short=True) as story:
        yield story


def test_preview_of_a_fresh_host_says_what_would_come_and_does_nothing(story: Story) -> None:
    played, left = story.preview

    assert played.changed > 0
    assert left == {}


def test_functions_run_as_the_mapped_users(story: Story) -> None:
    answers = story.first.answers.values()

    assert {one.who: (one.user, one.host) for one in answers} == {"alice": ("alice", HOST), "bob": ("bob", HOST)}
    assert all("Python 3.13" in one.result for one in answers)
    assert story.first.looked.services == dict.fromkeys(UNITS, (True, True))


def test_second_play_changes_nothing(story: Story) -> None:
    assert story.second.changed == 0, story.second.changed_tasks()


def test_reboot_brings_everything_back(story: Story) -> None:
    answers, looked = story.rebooted

    assert {one.who: one.user for one in answers.values()} == {"alice": "alice", "bob": "bob"}
    assert looked == story.first.looked


def test_preview_of_a_host_that_is_as_it_should_be_finds_nothing(story: Story) -> None:
    assert story.converged.changed == 0, story.converged.changed_tasks()
    assert f"{HOST}: as the site document says" in story.converged.output


def test_status_is_a_table_of_all_services(story: Story) -> None:
    for unit in UNITS:
        assert any(line.split()[0:3] == [f'"{HOST}', unit, "active"] for line in story.told.output.splitlines()), unit


def test_restore_brings_back_what_was_deleted_after_the_backup(story: Story) -> None:
    folder, answers = story.restored

    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "hub.backup": 0o600,
        "broker-definitions.json": 0o600,
    }
    assert {one.who: one.user for one in answers.values()} == {"alice": "alice", "bob": "bob"}


def test_new_secrets_are_taken_up_by_all_who_use_them(story: Story) -> None:
    before, stage = story.rotated

    assert {one.who: one.user for one in stage.answers.values()} == {"alice": "alice", "bob": "bob"}
    assert not set(before.values()) & set(secrets_of(story.site).values())
    assert "rabbitmq : Make the administrator, or give it the password" in stage.played.changed_tasks()


def test_absent_leaves_nothing(story: Story) -> None:
    _, left = story.removed

    assert left == {}
