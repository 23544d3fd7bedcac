"""One host with everything, on Debian 13: another systemd, another RabbitMQ, a newer Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.site_documents import HOST
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


def test_absent_leaves_nothing(story: Story) -> None:
    _, left = story.removed

    assert left == {}
