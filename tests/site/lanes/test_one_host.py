"""One host with everything, on Debian 12: hub, broker and endpoints, from nothing to nothing.

The host is set up, looked at, rebooted, changed by hand, upgraded, rolled back and emptied; the story keeps that order,
whichever test is the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.site_documents import HOST
from tests.support.site_looks import UNITS
from tests.support.site_story import PREVIOUS, Stage, Story, told_on

pytestmark = pytest.mark.timeout(900)  # whichever test is the first waits for all stages before its own
FIRST_RESULT_S = 90.0
LISTENING = [
    "tcp://0.0.0.0:22",
    "tcp://127.0.0.1:15672",  # RabbitMQ's management, for the hub
    "tcp://127.0.0.1:25672",  # and between its nodes, of which there is one
    "tcp://127.0.0.1:4369",
    "tcp://127.0.0.1:5000",
    "tcp://127.0.0.1:5672",
    "tcp://:::22",
]
READABLE = [
    "/etc/compute-hub/hub.yaml",
    "/etc/globus-compute-endpoint/cluster.expect.yaml",
    "/etc/globus-compute-endpoint/cluster.policy.json",
    "/etc/rabbitmq/enabled_plugins",
    "/etc/rabbitmq/rabbitmq-env.conf",
    "/etc/rabbitmq/rabbitmq.conf",
]
SECRETS = {
    "/etc/compute-hub/broker_password",
    "/etc/globus-compute-endpoint/cluster.client_secret",
    "/etc/globus-compute-endpoint/cluster.health_secret",
    "/etc/globus-compute-endpoint/lab.client_secret",
    "/etc/globus-compute-endpoint/lab.health_secret",
}
WORST_SCORES = dict(zip(UNITS, (8.9, 5.4, 1.1, 1.6), strict=True))


@pytest.fixture(scope="module")
def story(peer_sdk_python: Path) -> Iterator[Story]:
    with told_on("bookworm", peer_sdk_python) as story:
        yield story


def functions_ran_as_their_users(stage: Stage) -> bool:
    return all((one.user, one.host) == (one.who, HOST) for one in stage.answers.values()) and len(stage.answers) == 2


def test_first_play_ends_with_functions_that_ran_as_the_mapped_users(story: Story) -> None:
    stage = story.first

    assert functions_ran_as_their_users(stage)
    assert len({one.uid for one in stage.answers.values()}) == 2
    assert "cluster: registered, its heartbeat seen, a function answered as alice" in stage.played.output
    assert "lab: registered, its heartbeat seen, a function answered as carol" in stage.played.output


def test_first_function_s_result_is_there_soon(story: Story) -> None:
    stage = story.first
    print(f"From ansible-playbook to the first function's result: {stage.seconds:.0f} s (load {stage.load:.1f})")

    # Stated for a machine that does nothing else.
    assert stage.seconds < FIRST_RESULT_S * stage.load


def test_second_play_changes_nothing(story: Story) -> None:
    assert story.second.changed == 0, story.second.changed_tasks()


def test_services_run_and_start_at_boot(story: Story) -> None:
    looked = story.first.looked

    assert looked.services == dict.fromkeys(UNITS, (True, True))
    assert looked.state == "running"


def test_nothing_listens_beyond_what_the_site_needs(story: Story) -> None:
    assert story.first.looked.listening == LISTENING


def test_services_are_hardened(story: Story) -> None:
    scores = story.first.looked.scores
    print(f"systemd-analyze security: {scores}")

    assert {unit: score for unit, score in scores.items() if score > WORST_SCORES[unit]} == {}


def test_other_accounts_can_read_no_file_of_the_site_but_those_without_secrets(story: Story) -> None:
    assert story.first.looked.readable == READABLE


def test_secrets_are_in_no_file_but_their_own_and_in_no_process_s_arguments(story: Story) -> None:
    holders = {path: facts for path, facts in story.first.looked.holders.items() if not path.startswith("/run/cred")}

    # The broker reads the file itself, so its group may.
    assert holders.pop("/etc/rabbitmq/administrator_password") == "root 640"
    assert holders == dict.fromkeys(SECRETS, "root 600")


def test_reboot_brings_everything_back(story: Story) -> None:
    answers, looked = story.rebooted

    assert {one.who: one.user for one in answers.values()} == {"alice": "alice", "bob": "bob"}
    assert looked == story.first.looked


def test_health_gate_fails_the_play_with_the_reason(story: Story) -> None:
    played = story.unhealthy

    assert played.status == 2
    assert "The endpoint cluster does not work: " in played.output
    assert "offline" in played.output.partition("The endpoint cluster does not work: ")[2].partition("\n")[0]


def test_preview_tells_exactly_what_was_changed_by_hand(story: Story) -> None:
    told = story.drifted.output.rpartition("DRIFT ")[2]

    differing = [line.strip(" -") for line in told.splitlines() if line.startswith("  - ")]
    assert differing == [
        "Write the unit: /etc/systemd/system/compute-hub.service",
        "Write the files: /var/lib/globus-compute-endpoint/cluster/config.yaml",
        "Ensure that the service is as wanted: globus-compute-endpoint@cluster.service",
    ]
    assert "display_name: Somebody was here" in told
    assert "# by hand" in told


def test_upgrade_leaves_user_endpoints_running(story: Story) -> None:
    before, stage = story.upgraded

    assert (story.first.version, stage.version) == (PREVIOUS, story.current.name.split("-")[1])
    assert before
    assert before.items() <= stage.user_endpoints.items()
    assert functions_ran_as_their_users(stage)


def test_upgrade_undoes_what_was_changed_by_hand(story: Story) -> None:
    _, stage = story.upgraded

    assert {"hub : Write the unit", "endpoint : Write the files"} <= set(stage.played.changed_tasks())


def test_rollback_is_the_same_play_with_the_version_before(story: Story) -> None:
    stage = story.rolled_back

    assert stage.version == PREVIOUS
    assert functions_ran_as_their_users(stage)
    assert "program : Install the locked packages" not in stage.played.changed_tasks()
    assert story.upgraded[0].items() <= stage.user_endpoints.items()


def test_absent_leaves_nothing(story: Story) -> None:
    played, left = story.removed

    assert played.changed > 0
    assert left == {}
