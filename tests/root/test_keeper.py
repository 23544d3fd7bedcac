"""Keepers and the processes that they start: who these are, what they have, and how they end."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import Accounts, TestUser
from tests.support.installed import Installed
from tests.support.monitors import Site, is_alive, sealed, site, wait_until

NONE = "0000000000000000"


@pytest.fixture(scope="module")
def group(machine: Accounts) -> str:
    return machine.group()


@pytest.fixture(scope="module")
def her(machine: Accounts, group: str) -> TestUser:
    return machine.user(groups=[group])


def seen(user: TestUser) -> dict[str, Any]:
    """What the user's process has reported."""
    return dict(json.loads((user.home / "report.json").read_text()))


def report(user: TestUser) -> str:
    (user.home / "report.json").unlink(missing_ok=True)
    return str(user.home / "report.json")


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def test_the_user_s_process_is_the_user_and_nobody_else(place: Site, her: TestUser, group: str) -> None:
    import grp

    monitor = place.start(SECRET="of the monitor", LD_LIBRARY_PATH="/x", PYTHONPATH="/x")
    monitor.hello()
    event = monitor.running("uep.1", her.name, report=report(her))

    found = seen(her)
    assert found["pid"] == event["pid"] == found["session"]
    assert found["uids"] == [her.uid] * 3
    assert found["gids"] == [her.gid] * 3
    assert found["groups"] == sorted({her.gid, grp.getgrnam(group).gr_gid})
    assert {found["capabilities"][name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {NONE}
    assert found["no_new_privileges"] == "0"
    assert found["umask"] == 0o077
    assert found["directory"] == str(her.home)
    assert found["blocked"] == NONE
    assert found["arguments"] == ["uep.1"]


def test_the_user_s_process_inherits_no_descriptor_and_no_variable(place: Site, her: TestUser) -> None:
    monitor = place.start(SECRET="of the monitor", LD_LIBRARY_PATH="/x", PYTHONPATH="/x", LANG="C.UTF-8")
    monitor.hello()
    event = monitor.running("uep.1", her.name, report=report(her))

    found = seen(her)
    assert found["environment"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(her.home),
        "USER": her.name,
        "LOGNAME": her.name,
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
    }
    *places, listing = found["descriptors"].items()
    assert [number for number, _ in places] == ["0", "1", "2", "3", "4", "5"]
    assert listing[1] == ""  # the one that lists them
    assert [target.partition(":")[0] for _, target in places] == [
        "/memfd",
        "/dev/null",
        "/dev/null",
        "pipe",
        "/memfd",
        "/dev/null",
    ]
    # By the kernel's word, too.
    assert "SECRET" not in Path(f"/proc/{event['pid']}/environ").read_text()


def test_three_settings_are_three_things(
    program: Installed, machine: Accounts, service: TestUser, her: TestUser
) -> None:
    with site(program, machine, service, no_new_privileges=True, drop_bounding_set=True) as place:
        monitor = place.start()
        monitor.hello()
        monitor.running("uep.1", her.name, report=report(her))

        assert seen(her)["no_new_privileges"] == "1"
        assert set(seen(her)["capabilities"].values()) == {NONE}


def test_a_home_that_is_not_there_is_replaced_by_the_root_directory(place: Site, machine: Accounts) -> None:
    homeless = machine.user()
    os.rename(homeless.home, f"{homeless.home}.away")
    monitor = place.start()
    monitor.hello()
    try:
        event = monitor.running("uep.1", homeless.name)
        assert os.readlink(f"/proc/{event['pid']}/cwd") == "/"
    finally:
        os.rename(f"{homeless.home}.away", homeless.home)


def test_the_tiers_run_as_root_the_service_user_root_and_the_user(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    event = monitor.running("uep.1", her.name)
    keeper = place.facts()["uep.1"]["keeper"]

    def uids(pid: int) -> set[int]:
        line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
        return {int(word) for word in line.split()[1:]}

    pids = (monitor.process.pid, monitor.manager, keeper, event["pid"])
    assert [uids(pid) for pid in pids] == [{0}, {place.service.uid}, {0}, {her.uid}]
    assert [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids[:3:2]] == ["gce-monitor", "gce-keeper"]


def test_the_credentials_file_has_what_the_manager_sent_last_and_the_user_can_t_write_it(
    place: Site, her: TestUser
) -> None:
    monitor = place.start()
    monitor.hello()
    pid = monitor.running("uep.1", her.name)["pid"]

    for content in (b"first, and longer", b"second"):
        monitor.ask("credentials", sealed(content), name="uep.1")
        path = Path(f"/proc/{pid}/fd/4")
        wait_until(lambda path=path, content=content: path.read_bytes() == content, "the credentials did not arrive")
    assert oct(path.stat().st_mode)[-3:] == "444"


def test_a_failure_of_the_user_s_process_reaches_the_manager_as_it_was_told(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    monitor.start("uep.1", her.name, do="fail")
    monitor.wait_for("accepted")
    event = monitor.next()

    assert (event["event"], event["step"], event["failure"]["code"]) == ("failed", "prepare", "BAD")
    assert event["failure"]["reason"] == "It does not fit"
    assert place.facts() == {}
    assert "for the admin" in place.log()


def test_nonsense_of_the_user_s_process_is_a_failure_too(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    monitor.start("uep.1", her.name, do="garbage")
    monitor.wait_for("accepted")

    assert monitor.next()["failure"]["code"] == "CANNOT_START_PREPARE"


def test_the_end_of_a_user_endpoint_is_told_with_its_status(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    monitor.running("uep.1", her.name, do="die")
    assert monitor.wait_for("ended")["status"] == 7

    monitor.running("uep.1", her.name)
    monitor.ask("signal", name="uep.1", signal="TERM")
    assert monitor.wait_for("ended")["status"] == 0

    monitor.running("uep.1", her.name)
    monitor.ask("signal", name="uep.1", signal="KILL")
    assert monitor.wait_for("ended")["status"] == -signal.SIGKILL
    assert place.facts() == {}


def test_what_a_user_endpoint_leaves_behind_is_ended_also_when_it_was_killed(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    pid = monitor.running("uep.1", her.name, do="leave")["pid"]
    keeper = place.facts()["uep.1"]["keeper"]
    wait_until(lambda: len(children_of(keeper)) == 2, "the process that was left is not the keeper's")
    (left,) = [child for child in children_of(keeper) if child != pid]

    os.kill(pid, signal.SIGKILL)

    event = monitor.wait_for("ended", "uep.1")
    assert event["status"] == -signal.SIGKILL
    assert event["seconds"] >= 1  # end_s
    assert not is_alive(left)
    assert not is_alive(keeper)


def test_kill_ends_everything_at_once(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    monitor.running("uep.1", her.name, do="leave")
    monitor.ask("signal", name="uep.1", signal="KILL")

    assert monitor.wait_for("ended")["seconds"] < 1


def test_a_keeper_that_is_killed_takes_the_user_endpoint_with_it_and_the_manager_hears_of_it(
    place: Site, her: TestUser
) -> None:
    monitor = place.start()
    monitor.hello()
    pid = monitor.running("uep.1", her.name)["pid"]

    os.kill(place.facts()["uep.1"]["keeper"], signal.SIGKILL)

    assert monitor.wait_for("ended")["status"] == -signal.SIGKILL
    wait_until(lambda: not is_alive(pid), "the user endpoint is still there")
    assert "without a word" in place.log()
    assert place.facts() == {}


def test_sigterm_to_a_keeper_ends_the_user_endpoint_in_good_order(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    monitor.running("uep.1", her.name)
    os.kill(place.facts()["uep.1"]["keeper"], signal.SIGTERM)

    assert monitor.wait_for("ended")["status"] == 0


def test_user_endpoints_outlive_the_monitor_and_the_next_one_goes_on_with_them(place: Site, her: TestUser) -> None:
    first = place.start()
    first.hello()
    pids = {name: first.running(name, her.name)["pid"] for name in ("uep.1", "uep.2", "uep.3")}

    first.process.kill()
    first.process.wait(10)
    os.kill(pids["uep.3"], signal.SIGTERM)  # while nobody listens
    wait_until(lambda: not is_alive(pids["uep.3"]), "it did not end")
    wait_until(lambda: place.facts()["uep.3"]["end"] is not None, "its keeper left no end")
    second = place.start()
    *found, welcome = second.hello()

    assert {event["name"]: event["pid"] for event in found} == pids
    assert {(event["user"], event["uid"], event["state"], event["note"]) for event in found} == {
        (her.name, her.uid, "running", "n")
    }
    assert welcome["event"] == "welcome"
    ended = second.wait_for("ended")
    assert (ended["name"], ended["status"]) == ("uep.3", 0)
    assert is_alive(pids["uep.1"])
    second.ask("signal", name="uep.1", signal="TERM")
    assert second.wait_for("ended")["name"] == "uep.1"
    second.ask("list")
    assert [second.next()["event"], second.next()["event"]] == ["user-endpoint", "listed"]
    assert second.running("uep.1", her.name)


def test_the_keeper_s_own_limits_stay_what_they_were(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    monitor.running("uep.1", her.name)
    keeper = place.facts()["uep.1"]["keeper"]

    assert resource.prlimit(keeper, resource.RLIMIT_NOFILE) == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_two_hundred_starts_in_one_go_wait_for_nobody(place: Site, machine: Accounts) -> None:
    users = [machine.user() for _ in range(4)]
    place.write_policy({"pam": {"enable": False}, "max_user_endpoints_per_user": 60})
    monitor = place.start()
    monitor.hello()
    for number in range(200):
        monitor.start(f"uep.{number}", users[number % 4].name)
    while sum(event["event"] == "running" for event in monitor.events) < 200:
        monitor.next()
    for number in range(200):
        monitor.ask("signal", name=f"uep.{number}", signal="TERM")
    while sum(event["event"] == "ended" for event in monitor.events) < 200:
        monitor.next()

    assert {event["event"] for event in monitor.events} == {"welcome", "accepted", "running", "ended"}
    assert place.facts() == {}
