"""Real PAM: who is let in, what a session brings, and that it lasts exactly as long as the user endpoint."""

from __future__ import annotations

import grp
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import Accounts, TestUser
from tests.support.installed import Installed
from tests.support.monitors import RunningMonitor, Site, site, wait_until

NOLOGIN = Path("/etc/nologin")
ACCOUNT = "account required pam_nologin.so\naccount required pam_unix.so\n"


@pytest.fixture(scope="module")
def service(machine: Accounts) -> TestUser:
    return machine.user(system=True)


@pytest.fixture(scope="module")
def her(machine: Accounts) -> TestUser:
    return machine.user()


@pytest.fixture
def start(
    program: Installed, machine: Accounts, service: TestUser
) -> Iterator[Callable[..., tuple[Site, RunningMonitor]]]:
    """Makes a PAM service of these lines, and a greeted monitor that uses it."""
    with ExitStack() as stack:

        def made(lines: str, **policy: Any) -> tuple[Site, RunningMonitor]:
            pam = {"enable": True, "service_name": machine.pam_service(lines)}
            context: AbstractContextManager[Site] = site(program, machine, service, pam=pam, **policy)
            place = stack.enter_context(context)
            monitor = place.start()
            assert monitor.hello()[-1]["pam"] is True
            return place, monitor

        yield made


@pytest.fixture
def nologin() -> Iterator[Callable[[str], None]]:
    """Closes the machine for logins, which is global: as short as can be."""
    assert not NOLOGIN.exists()

    def close(text: str) -> None:
        NOLOGIN.write_text(text)

    yield close
    NOLOGIN.unlink(missing_ok=True)


def failure_of(monitor: RunningMonitor, user: TestUser) -> dict[str, Any]:
    """What becomes of a start that PAM should not let through."""
    monitor.start("uep.1", user.name)
    monitor.wait_for("accepted")
    event = monitor.next()
    assert event["event"] == "failed", event
    return event


def recorder(folder: Path) -> tuple[str, Path]:
    """A session module's line that records what it is called for, by whom; and the file where it does."""
    record, script = folder / "sessions", folder / "record.sh"
    script.write_text(f'#!/bin/sh\necho "$PAM_TYPE $PAM_USER $(id -ru) $(date +%s.%N)" >> {record}\n')
    script.chmod(0o755)
    return f"session required pam_exec.so {script}\n", record


def sessions(record: Path) -> list[list[str]]:
    return [line.split() for line in record.read_text().splitlines()] if record.exists() else []


def test_an_expired_account_is_refused_in_words_for_both(machine: Accounts, start: Any) -> None:
    gone = machine.user(expires="2001-01-01")
    place, monitor = start(ACCOUNT)

    event = failure_of(monitor, gone)

    assert event["step"] == "pam-account"
    assert event["failure"]["reason"] == "Your local account on this machine has expired"
    assert f"pam_acct_mgmt (user {gone.name}" in place.log()
    assert "13, User account has expired" in place.log()
    assert place.facts() == {}


def test_an_expired_password_is_refused_in_words(machine: Accounts, start: Any) -> None:
    old = machine.user()
    subprocess.run(["chpasswd"], input=f"{old.name}:{os.urandom(8).hex()}", text=True, check=True)
    subprocess.run(["chage", "--lastday", "0", old.name], check=True)
    _, monitor = start(ACCOUNT)

    assert "password of your local account has expired" in failure_of(monitor, old)["failure"]["reason"]


def test_a_shell_that_pam_does_not_like_is_refused_where_the_policy_allows_every_one(
    machine: Accounts, start: Any
) -> None:
    locked = machine.user(shell="/usr/sbin/nologin")
    place, monitor = start("account required pam_shells.so\n", shells=[])

    event = failure_of(monitor, locked)

    assert event["failure"]["reason"] == "Your local account may not be used on this machine now"
    assert "7, Authentication failure" in place.log()


def test_a_machine_that_is_closed_says_so_with_its_own_text(
    start: Any, her: TestUser, nologin: Callable[[str], None]
) -> None:
    _, monitor = start(ACCOUNT)
    nologin("Maintenance until noon\n")

    event = failure_of(monitor, her)

    assert event["failure"]["reason"].endswith("on this machine now: Maintenance until noon")


def test_a_session_that_can_t_be_opened_fails_and_closes_nothing(start: Any, her: TestUser, tmp_path: Path) -> None:
    line, record = recorder(tmp_path)
    tmp_path.chmod(0o755)
    place, monitor = start(f"{ACCOUNT}session required pam_deny.so\n{line}")

    event = failure_of(monitor, her)

    assert event["step"] == "pam-session"
    assert event["failure"]["reason"] == "This machine could not open a session for your local account"
    assert "pam_open_session" in place.log()
    assert [one[0] for one in sessions(record)] == ["open_session"]  # the stack goes on, its session never was open


def test_a_failing_session_program_fails_the_start(start: Any, her: TestUser) -> None:
    _, monitor = start(f"{ACCOUNT}session required pam_exec.so /bin/false\n")

    assert failure_of(monitor, her)["step"] == "pam-session"


@pytest.mark.parametrize("end", ["TERM", "KILL", "kill -9", "left"])
def test_the_session_spans_the_user_endpoint_s_life_and_is_closed_once_as_root(
    start: Any, her: TestUser, tmp_path: Path, end: str
) -> None:
    line, record = recorder(tmp_path)
    place, monitor = start(ACCOUNT + line)
    pid = monitor.running("uep.1", her.name, do="leave" if end == "left" else "run")["pid"]
    assert [one[:3] for one in sessions(record)] == [["open_session", her.name, "0"]]

    if end in ("kill -9", "left"):
        os.kill(pid, signal.SIGKILL)
    else:
        monitor.ask("signal", name="uep.1", signal=end)
    ended = monitor.wait_for("ended")

    assert [one[:3] for one in sessions(record)] == [["open_session", her.name, "0"], ["close_session", her.name, "0"]]
    opened, closed = (float(one[3]) for one in sessions(record))
    assert closed - opened >= ended["seconds"] - 0.1
    assert closed - opened >= (1 if end == "left" else 0)  # end_s, with a process that was left
    assert place.facts() == {}


def test_the_session_stays_open_while_monitors_come_and_go(start: Any, her: TestUser, tmp_path: Path) -> None:
    line, record = recorder(tmp_path)
    place, first = start(ACCOUNT + line)
    first.running("uep.1", her.name)
    first.process.kill()
    first.process.wait(10)

    second = place.start()
    second.hello()
    assert len(sessions(record)) == 1
    second.ask("signal", name="uep.1", signal="TERM")
    second.wait_for("ended")
    assert [one[0] for one in sessions(record)] == ["open_session", "close_session"]


def test_the_session_s_variables_limits_and_groups_are_the_user_s(
    machine: Accounts, start: Any, her: TestUser, tmp_path: Path
) -> None:
    extra = machine.group()
    limits, variables = tmp_path / "limits.conf", tmp_path / "env.conf"
    limits.write_text(f"{her.name} soft nofile 128\n{her.name} hard nofile 256\n{her.name} soft nproc 77\n")
    variables.write_text('GCT_SITE DEFAULT="of the site"\n')
    modules = (f"pam_limits.so conf={limits}", f"pam_env.so conffile={variables} readenv=0")
    place, monitor = start(ACCOUNT + "".join(f"session required {module}\n" for module in modules))
    report = her.home / "limits.json"
    monitor.running("uep.1", her.name, report=str(report))

    found = json.loads(report.read_text())
    assert found["environment"]["GCT_SITE"] == "of the site"
    assert found["limits"]["RLIMIT_NOFILE"] == [128, 256]
    assert found["limits"]["RLIMIT_NPROC"][0] == 77
    assert found["groups"] == [her.gid]
    assert grp.getgrnam(extra).gr_gid not in found["groups"]
    assert "nofile=128/256" in place.log()
    keeper = place.facts()["uep.1"]["keeper"]
    assert "Max open files            128 " not in Path(f"/proc/{keeper}/limits").read_text()


def test_the_example_of_the_document_lets_a_user_in(start: Any, her: TestUser) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "privileges.md").read_text()
    example = text.partition("`/etc/pam.d/globus-compute-endpoint`:\n\n```\n")[2].partition("```")[0]
    assert "pam_limits" in example

    _, monitor = start(example)

    assert monitor.running("uep.1", her.name)


def test_a_service_that_pam_does_not_have_is_no_reason_to_let_everybody_in(
    program: Installed, machine: Accounts, service: TestUser
) -> None:
    with site(program, machine, service, pam={"service_name": "gct-is-not-there"}) as place:
        done = subprocess.run(place.command(), stderr=subprocess.PIPE, text=True, timeout=30)

    assert done.returncode == 78
    assert "PAM has no service gct-is-not-there" in done.stderr


def test_pam_that_takes_long_delays_nobody_else(start: Any, machine: Accounts, her: TestUser, tmp_path: Path) -> None:
    slow = machine.user()
    script = tmp_path / "slow.sh"
    script.write_text(
        f'#!/bin/sh\n[ "$PAM_USER" = {slow.name} ] && [ "$PAM_TYPE" = open_session ] && sleep 3\nexit 0\n'
    )
    script.chmod(0o755)
    place, monitor = start(f"{ACCOUNT}session required pam_exec.so {script}\n")

    monitor.start("uep.slow", slow.name)
    monitor.start("uep.quick", her.name)
    assert monitor.wait_for("running")["name"] == "uep.quick"
    monitor.ask("signal", name="uep.slow", signal="TERM")  # it hears that when PAM is done
    wait_until(lambda: place.facts()["uep.slow"]["state"] == "starting", "it is not there yet")
    assert monitor.next()["name"] == "uep.slow"
    assert {event["name"] for event in monitor.events if event["event"] == "accepted"} == {"uep.slow", "uep.quick"}


def test_pam_that_never_comes_to_an_end_can_be_ended(start: Any, her: TestUser, tmp_path: Path) -> None:
    script, marks = tmp_path / "hangs.sh", tmp_path / "hangs"
    script.write_text(f'#!/bin/sh\n[ "$PAM_TYPE" = open_session ] && echo $$ > {marks} && exec sleep 600\nexit 0\n')
    script.chmod(0o755)
    _, monitor = start(f"{ACCOUNT}session required pam_exec.so {script}\n")
    monitor.start("uep.1", her.name)
    monitor.wait_for("accepted")
    wait_until(lambda: marks.exists() and marks.read_text().strip(), "PAM was not asked")

    monitor.ask("signal", name="uep.1", signal="KILL")

    assert monitor.next()["event"] == "failed"  # after five seconds
    os.kill(int(marks.read_text()), signal.SIGKILL)
