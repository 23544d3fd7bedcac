"""A monitor that may have few descriptors open takes more; whom it starts has what it was given."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.accounts import Accounts
from tests.support.installed import Installed
from tests.support.monitors import Site, site

GIVEN = 40
NUMBER = 30  # of user endpoints; the monitor has two descriptors for each


@pytest.fixture
def place(program: Installed, machine: Accounts) -> Iterator[Site]:
    with site(program, machine, machine.user(system=True)) as made:
        yield made


def soft_limit(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max open"))
    return int(line.split()[3])


def test_more_user_endpoints_than_the_monitor_was_given_descriptors_for(
    place: Site, machine: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, as_given = machine.user(), place.command
    limited = ["prlimit", f"--nofile={GIVEN}:{resource.getrlimit(resource.RLIMIT_NOFILE)[1]}", "--"]
    monkeypatch.setattr(place, "command", lambda *arguments: [*limited, *as_given(*arguments)])
    monitor = place.start()
    monitor.hello()

    pids = [monitor.running(f"uep.{number}", user.name)["pid"] for number in range(NUMBER)]

    assert soft_limit(monitor.process.pid) > GIVEN
    assert len(list(Path(f"/proc/{monitor.process.pid}/fd").iterdir())) > GIVEN
    for pid in (pids[0], pids[-1], monitor.manager, place.facts()["uep.1"]["keeper"]):
        assert soft_limit(pid) == GIVEN
    for number in range(NUMBER):
        monitor.ask("signal", name=f"uep.{number}", signal="KILL")
    for _ in range(NUMBER):
        monitor.wait_for("ended")
