"""User endpoints outlive their manager and their monitor: the same processes, all results, none twice."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.accounts import Accounts, TestUser
from tests.support.hubs import RunningHub
from tests.support.installed import Installed
from tests.support.multi_user import NAME, MultiUserEndpoint, SdkUser

TASKS = {"alice": 17, "bob": 17, "carol": 16}


class Lab:
    """An endpoint, three users, and functions that wait for a gate."""

    def __init__(self, endpoint: MultiUserEndpoint, accounts: dict[str, TestUser], sdk: dict[str, SdkUser]) -> None:
        self.endpoint = endpoint
        self.accounts = accounts
        self.sdk = sdk

    def pids(self) -> dict[str, int]:
        """User endpoint of each account, as the manager tells."""
        return {one["user"]: one["pid"] for one in self.endpoint.user_endpoints()}

    def ledger(self, who: str, story: str) -> Path:
        return self.accounts[who].home / story

    def lines(self, story: str) -> list[str]:
        found = [self.ledger(who, story) for who in TASKS]
        return [line for path in found if path.exists() for line in path.read_text().splitlines()]

    def live_through(self, story: str, event: Callable[[MultiUserEndpoint], None]) -> None:
        """Have all tasks running when `event` happens, and check what there is afterwards."""
        gate = self.endpoint.base / f"gate-{story}"
        first, begun = 0, []
        for who, count in TASKS.items():
            ledger = self.ledger(who, story)
            begun.append(self.sdk[who].begin("hold", self.endpoint.endpoint_id, first, count, gate, ledger))
            first += count
        self.endpoint.wait_for(lambda: len(self.lines(story)) == first, 60)
        before = self.pids()

        event(self.endpoint)

        assert self.pids() == before
        gate.touch()
        answers = [SdkUser.end(process, self.endpoint.logs)["results"] for process in begun]
        results = [tuple(result) for answer in answers for result in answer]
        assert sorted(number for number, _ in results) == list(range(first))
        assert {pid for _, pid in results} == set(before.values())
        assert Counter(self.lines(story)) == {f"{n} {what}": 1 for n in range(first) for what in ("began", "ended")}


@pytest.fixture(scope="module")
def lab(hub: RunningHub, peer_sdk_python: Path, program: Installed, machine: Accounts) -> Iterator[Lab]:
    accounts = {who: machine.user() for who in TASKS}
    clients = {who: hub.client(f"survivor-{who}") for who in TASKS}
    with tempfile.TemporaryDirectory(prefix="gct-survival-") as folder:
        Path(folder).chmod(0o755)
        endpoint = MultiUserEndpoint(
            Path(folder) / "site",
            programs=program.root / "bin",
            service_user=machine.user(system=True, shell="/usr/sbin/nologin").name,
            hub_env=hub.env,
            owner=hub.client("survivor-owner"),
            users={clients[who].client_id: account.name for who, account in accounts.items()},
            policy={"pam": {"enable": False}},
        )
        sdk = {who: SdkUser(peer_sdk_python, hub.env, client) for who, client in clients.items()}
        with endpoint:
            yield Lab(endpoint, accounts, sdk)


def test_a_manager_that_is_killed_costs_no_task(lab):
    def event(endpoint: MultiUserEndpoint) -> None:
        assert endpoint.kill_manager() != 0
        endpoint.start()

    lab.live_through("manager", event)


def test_a_monitor_that_is_killed_costs_no_task(lab):
    def event(endpoint: MultiUserEndpoint) -> None:
        endpoint.kill_monitor()
        endpoint.start()

    lab.live_through("monitor", event)


def test_an_upgrade_in_place_costs_no_task(lab, program):
    def event(endpoint: MultiUserEndpoint) -> None:
        endpoint.run("stop", NAME, "--keep-users")
        program.put_package()
        endpoint.start()

    lab.live_through("upgrade", event)


def test_one_that_was_found_again_is_used_again_and_its_end_is_seen(lab):
    before = lab.sdk["alice"].play("facts", lab.endpoint)["pid"]
    lab.endpoint.kill_manager()
    lab.endpoint.start()

    assert lab.sdk["alice"].play("facts", lab.endpoint)["pid"] == before
    psutil.Process(before).kill()
    lab.endpoint.wait_for(lambda: "ended with signal 9" in lab.endpoint.log)
    assert lab.sdk["alice"].play("facts", lab.endpoint)["pid"] != before


def test_a_stop_ends_them_all_and_one_that_keeps_them_ends_none(lab):
    for who in TASKS:
        lab.sdk[who].play("facts", lab.endpoint)
    processes = [psutil.Process(pid) for pid in lab.pids().values()]

    lab.endpoint.run("stop", NAME, "--keep-users")
    assert all(process.is_running() for process in processes)
    lab.endpoint.start()
    lab.endpoint.run("stop", NAME)

    assert not any(process.is_running() for process in processes)
    assert os.listdir(lab.endpoint.runtime / NAME) == ["monitor.lock"]
    lab.endpoint.start()
