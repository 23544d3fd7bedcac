"""The policy against a manager that was replaced by a hostile program: whatever it asks for, it gets nobody's account
but those that the policy allows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.accounts import Accounts, TestUser, run_tool
from tests.support.installed import Installed
from tests.support.monitors import RunningMonitor, Site, site

BECOME = """
import ctypes, json, os, sys
from endpoint.privileged import linux
from endpoint.privileged.become import Identity, become
uid, gid, bits = map(int, sys.argv[1:])
if bits:
    linux.prctl(28, bits)  # PR_SET_SECUREBITS: what the kernel does to capabilities when the user id changes
steps = []
try:
    become(Identity(uid, gid, (gid,)), lambda step: steps.append(step.value))
    print(json.dumps([steps, os.getresuid(), vars(linux.own_capabilities())]))
except Exception as error:
    print(json.dumps([steps, str(error)]))
"""


@pytest.fixture(scope="module")
def service(machine: Accounts) -> TestUser:
    return machine.user(system=True)


@pytest.fixture(scope="module")
def group(machine: Accounts) -> str:
    return machine.group()


@pytest.fixture(scope="module")
def her(machine: Accounts, group: str) -> TestUser:
    return machine.user(groups=[group])


@pytest.fixture(scope="module")
def him(machine: Accounts) -> TestUser:
    return machine.user()


@pytest.fixture
def start(
    program: Installed, machine: Accounts, service: TestUser
) -> Iterator[Callable[..., tuple[Site, RunningMonitor]]]:
    with ExitStack() as stack:

        def made(**policy: Any) -> tuple[Site, RunningMonitor]:
            place = stack.enter_context(site(program, machine, service, **policy))
            monitor = place.start()
            monitor.hello()
            return place, monitor

        yield made


def refusal(monitor: RunningMonitor, user: str, name: str = "uep.1") -> str:
    """The code with which a start is refused."""
    monitor.start(name, user)
    event = monitor.next()
    assert event["event"] == "refused", event
    return str(event["code"])


def test_root_under_any_name_and_system_accounts_can_t_be_had(start: Any, machine: Accounts, service: TestUser) -> None:
    run_tool("useradd", "--non-unique", "--uid", "0", "--no-create-home", "--no-user-group", "gctalsoroot")
    try:
        place, monitor = start(minimum_uid=1, shells=[])

        assert refusal(monitor, "root") == "FORBIDDEN_USER"
        assert refusal(monitor, "gctalsoroot") == "FORBIDDEN_USER"
        assert refusal(monitor, "nobody") == "FORBIDDEN_USER"
        assert refusal(monitor, service.name) == "FORBIDDEN_USER"
        assert place.facts() == {}
    finally:
        run_tool("userdel", "--force", "gctalsoroot")


def test_the_service_user_under_another_name_can_t_be_had(start: Any, service: TestUser) -> None:
    run_tool("useradd", "--non-unique", "--uid", str(service.uid), "--no-create-home", "--no-user-group", "gctother")
    try:
        _, monitor = start(minimum_uid=1, shells=[])
        assert refusal(monitor, "gctother") == "FORBIDDEN_USER"
    finally:
        run_tool("userdel", "--force", "gctother")


def test_the_system_s_own_minimum_and_shells_hold_without_a_policy(start: Any, machine: Accounts) -> None:
    _, monitor = start()

    assert refusal(monitor, "daemon") == "UID_TOO_SMALL"
    assert refusal(monitor, machine.user(shell="/usr/sbin/nologin").name) == "SHELL_NOT_ALLOWED"


@pytest.mark.parametrize("name", ["", "gct-is-not-there", "../../root", "root ", "ro\not", "0", "-1", "a" * 1000])
def test_what_is_no_account_is_refused_like_one_that_is_not_there(start: Any, name: str) -> None:
    _, monitor = start()

    assert refusal(monitor, name) == "NO_SUCH_USER"
    assert monitor.process.poll() is None


def test_groups_decide_as_the_machine_has_them(start: Any, her: TestUser, him: TestUser, group: str) -> None:
    _, monitor = start(required_groups=[group])
    assert refusal(monitor, him.name) == "NOT_IN_GROUP"
    assert monitor.running("uep.1", her.name)

    _, other = start(forbidden_groups=[group])
    assert refusal(other, her.name) == "FORBIDDEN_GROUP"
    assert other.running("uep.1", him.name)


def test_a_refusal_is_one_sentence_for_the_user_and_all_of_it_for_the_admin(
    start: Any, her: TestUser, group: str
) -> None:
    place, monitor = start(forbidden_groups=[group])
    refusal(monitor, her.name)

    event = monitor.events[-1]
    assert event["reason"] == "Your local account may not use this endpoint"
    assert group in event["detail"]
    assert group in place.log()
    assert "her@example.org" in place.log()


def test_there_are_no_more_user_endpoints_than_allowed_of_a_user_and_in_all(
    start: Any, her: TestUser, him: TestUser
) -> None:
    _, monitor = start(max_user_endpoints=3, max_user_endpoints_per_user=2)
    monitor.running("uep.1", her.name)
    monitor.running("uep.2", her.name)

    assert refusal(monitor, her.name, "uep.3") == "TOO_MANY_OF_USER"
    assert refusal(monitor, her.name, "uep.1") == "NAME_IN_USE"
    monitor.running("uep.3", him.name)
    assert refusal(monitor, him.name, "uep.4") == "TOO_MANY"
    monitor.ask("signal", name="uep.1", signal="TERM")
    monitor.wait_for("ended", "uep.1")
    assert monitor.running("uep.4", him.name)


def test_starts_all_at_once_don_t_get_around_the_limit_of_a_user(start: Any, her: TestUser) -> None:
    _, monitor = start(max_user_endpoints_per_user=2)
    for number in range(10):
        monitor.start(f"uep.{number}", her.name)

    while sum(event["event"] in ("running", "refused") for event in monitor.events) < 10:
        monitor.next()
    assert sum(event["event"] == "running" for event in monitor.events) == 2


def test_those_of_an_earlier_monitor_count(start: Any, her: TestUser) -> None:
    place, first = start(max_user_endpoints_per_user=1)
    first.running("uep.1", her.name)
    first.process.kill()
    first.process.wait(10)

    second = place.start()
    second.hello()

    assert refusal(second, her.name, "uep.2") == "TOO_MANY_OF_USER"


def test_a_user_can_t_start_more_often_than_allowed(start: Any, her: TestUser) -> None:
    _, monitor = start(starts_per_minute_per_user=2)
    for _ in range(2):
        monitor.running("uep.1", her.name, do="die")
        monitor.wait_for("ended")

    assert refusal(monitor, her.name) == "TOO_OFTEN"


@pytest.mark.parametrize("bits", [0, 0b10100, 0b111111])
def test_becoming_a_user_is_for_good_whatever_the_kernel_was_told_about_capabilities(
    program: Installed, her: TestUser, bits: int
) -> None:
    arguments = [str(her.uid), str(her.gid), str(bits)]
    done = subprocess.run(
        [program.python, "-I", "-c", BECOME, *arguments], stdout=subprocess.PIPE, check=True, timeout=30
    )

    steps, uids, capabilities = json.loads(done.stdout)
    assert steps == ["groups", "gid", "uid", "verify"]
    assert uids == [her.uid] * 3
    assert not any(bits for name, bits in capabilities.items() if name != "bounding")


def test_becoming_a_user_without_the_rights_to_is_an_error_and_no_half(program: Installed, her: TestUser) -> None:
    arguments = [str(her.uid), str(her.gid), "0"]
    user = ["setpriv", "--reuid", str(her.uid + 1), "--clear-groups"]
    done = subprocess.run(
        [*user, program.python, "-I", "-c", BECOME, *arguments], stdout=subprocess.PIPE, check=True, timeout=30
    )

    steps, error = json.loads(done.stdout)
    assert steps == ["groups"]
    assert "not permitted" in error
