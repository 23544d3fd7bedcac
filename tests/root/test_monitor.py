"""The monitor: what it is, what it starts, what it passes on, and when it refuses to be."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from endpoint.errors import EndpointError
from tests.support.accounts import Accounts, TestUser
from tests.support.installed import Installed
from tests.support.monitors import Site, is_alive, sealed, site, wait_until


@pytest.fixture(scope="module")
def her(machine: Accounts) -> TestUser:
    return machine.user()


def run(place: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A monitor that should end by itself."""
    return subprocess.run(place.command(*arguments), stderr=subprocess.PIPE, text=True, timeout=30)


def sockets_of(pid: int) -> list[str]:
    """The kinds of the sockets that a process has open."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(entry)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("unix", "tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "netlink"):
        path = Path(f"/proc/{pid}/net/{table}")
        if path.exists():
            found += [table for line in path.read_text().splitlines()[1:] if inodes & set(line.split())]
    assert len(found) == len(inodes)
    return found


def test_monitor_and_keeper_have_no_network_socket(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    monitor.running("uep.1", her.name)

    assert set(sockets_of(monitor.process.pid)) == {"unix"}
    assert set(sockets_of(place.facts()["uep.1"]["keeper"])) == {"unix"}


def test_monitor_and_keeper_have_no_shared_library_but_the_system_s(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    monitor.running("uep.1", her.name)

    for pid in (monitor.process.pid, place.facts()["uep.1"]["keeper"]):
        mapped = {line.split()[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/" in line}
        assert not [path for path in mapped if "site-packages" in path or "libssl" in path]


def test_the_manager_has_the_service_user_s_rights_and_variables_and_no_more(place: Site) -> None:
    monitor = place.start(LD_PRELOAD="", PYTHONPATH="/x", XDG_RUNTIME_DIR="/x", NOTIFY_SOCKET="/x", SITE="kept")

    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{monitor.manager}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == [str(place.service.uid)] * 4
    assert status["Gid"].split() == [str(place.service.gid)] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["Umask"] == "0077"
    assert os.getsid(monitor.manager) == monitor.manager
    variables = Path(f"/proc/{monitor.manager}/environ").read_text().split("\0")
    assert not [one for one in variables if one.startswith(("LD_", "PYTHON", "XDG_", "NOTIFY_"))]
    assert {"SITE=kept", f"USER={place.service.name}", f"HOME={place.service.home}"} <= set(variables)
    assert os.readlink(f"/proc/{monitor.manager}/cwd") == "/"
    assert {int(name) for name in os.listdir(f"/proc/{monitor.manager}/fd")} <= {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
    assert len(os.listdir(f"/proc/{monitor.manager}/fd")) == 4  # and its connection with the test


def test_the_monitor_ends_with_the_manager_s_status(place: Site) -> None:
    monitor = place.start()
    assert monitor.end_manager(73) == 73


def test_a_manager_that_is_killed_is_told_as_a_shell_would(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    pid = monitor.running("uep.1", her.name)["pid"]
    os.kill(monitor.manager, signal.SIGKILL)

    assert monitor.process.wait(10) == 128 + signal.SIGKILL
    assert is_alive(pid)


def test_signals_reach_the_manager_as_the_document_says(place: Site) -> None:
    monitor = place.start()
    for sent, expected in (("SIGHUP", "SIGHUP"), ("SIGUSR2", "SIGUSR2"), ("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM")):
        monitor.process.send_signal(getattr(signal, sent))
        assert monitor.heard() == getattr(signal, expected)


def test_a_manager_whose_monitor_is_killed_hears_of_it(place: Site) -> None:
    monitor = place.start()
    monitor.process.kill()

    assert monitor.heard() == signal.SIGTERM


def test_what_the_manager_asked_for_last_is_done(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    pid = monitor.running("uep.1", her.name)["pid"]
    monitor.ask("signal", name="uep.1", signal="TERM")

    assert monitor.end_manager() == 0
    wait_until(lambda: not is_alive(pid), "it was not ended")


def test_a_wrong_request_ends_manager_and_monitor_and_nothing_else(place: Site, her: TestUser) -> None:
    monitor = place.start()
    monitor.hello()
    pid = monitor.running("uep.1", her.name)["pid"]
    monitor.ask("become", user="root")

    assert monitor.process.wait(10) == 76
    wait_until(lambda: not is_alive(monitor.manager), "the manager is still there")
    assert is_alive(pid)
    assert "not in the table" in place.log()


def test_systemd_is_told_what_the_manager_says(place: Site) -> None:
    address = place.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(10)
        monitor = place.start(NOTIFY_SOCKET=str(address), WATCHDOG_USEC="10000000")
        assert monitor.hello()[-1]["watchdog_s"] == 5.0
        monitor.ask("ready")
        monitor.ask("alive")
        monitor.process.send_signal(signal.SIGTERM)

        assert [systemd.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_only_one_monitor_runs_an_endpoint(place: Site) -> None:
    place.start()

    done = run(place)

    assert done.returncode == 73
    assert "Another monitor runs this endpoint" in done.stderr


def test_a_policy_that_others_can_write_is_not_used(place: Site) -> None:
    (place.folder / "policy.json").chmod(0o664)

    done = run(place)

    assert done.returncode == 78
    assert "others than root can write it" in done.stderr


def test_a_policy_in_a_directory_that_others_can_write_is_not_used(place: Site) -> None:
    place.folder.chmod(0o777)

    done = run(place)

    assert done.returncode == 78
    assert "its directory" in done.stderr


def test_a_policy_that_another_user_owns_or_that_is_a_link_is_not_used(place: Site, her: TestUser) -> None:
    policy = place.folder / "policy.json"
    os.chown(policy, her.uid, her.gid)
    assert run(place).returncode == 78
    policy.rename(place.folder / "other.json")
    policy.symlink_to(place.folder / "other.json")
    assert run(place).returncode == 78


def test_a_service_user_that_is_not_there_or_not_the_owner_is_told_with_a_hint(place: Site, her: TestUser) -> None:
    place.write_policy({"service_user": "gct-is-not-there", "pam": {"enable": False}})
    assert "useradd" in run(place).stderr

    place.write_policy({"service_user": her.name, "pam": {"enable": False}})
    assert f"chown -R {her.name}" in run(place).stderr

    place.write_policy({"service_user": "root", "pam": {"enable": False}})
    assert run(place).returncode == 78


def test_a_runtime_directory_that_is_somebody_else_s_is_not_used(place: Site, her: TestUser) -> None:
    place.runtime.mkdir()
    (place.runtime / place.name).mkdir(mode=0o700)
    os.chown(place.runtime / place.name, her.uid, her.gid)

    done = run(place)

    assert done.returncode == 78
    assert "not ours alone" in done.stderr


def test_descriptors_that_the_manager_s_arguments_name_are_passed_on_and_no_others(place: Site) -> None:
    reading, writing = os.pipe()
    extra = os.open("/dev/null", os.O_RDONLY)
    script = place.folder / "manager_stand_in.py"
    script.write_text(f"import os, json; os.write({writing}, json.dumps(os.listdir('/proc/self/fd')).encode())")
    process = subprocess.Popen(
        place.command("--ready-fd", str(writing)), stderr=subprocess.PIPE, pass_fds=(writing, extra)
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = json.load(pipe)  # ends when nobody has the other end any more
    process.communicate(timeout=10)
    os.close(extra)

    assert str(writing) in found
    assert str(extra) not in found


def audit(place: Site) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place.folder / "audit" / "audit.log").read_text().splitlines()]


def test_the_audit_log_has_who_asked_what_was_allowed_and_how_it_ended(
    program: Installed, machine: Accounts, service: TestUser, her: TestUser
) -> None:
    with site(program, machine, service) as place:
        (place.folder / "audit").mkdir(mode=0o700)
        place.write_policy({"pam": {"enable": False}, "audit_log": str(place.folder / "audit" / "audit.log")})
        monitor = place.start()
        monitor.hello()
        monitor.start("uep.0", "root")
        monitor.ask("audit", record={"event": "mapping", "uid": 0, "identity": "i", "rule": 3})
        task = "fid=f tid=t bid=0 RECEIVED"
        pid = monitor.running("uep.1", her.name, do="audit", line=task)["pid"]
        wait_until(lambda: any(line["event"] == "RECEIVED" for line in audit(place)), "no task in the log")
        monitor.ask("signal", name="uep.1", signal="TERM")
        monitor.wait_for("ended")
        monitor.end_manager()

        found = {line["event"]: line for line in audit(place)}
        assert list(found) == [
            "log-opened",
            "session-begin",
            "refused",
            "manager-mapping",
            "start",
            "started",
            "RECEIVED",
            "ended",
            "session-end",
        ]
        assert (found["refused"]["user"], found["refused"]["code"]) == ("root", "FORBIDDEN_USER")
        assert (found["manager-mapping"]["uid"], found["manager-mapping"]["rule"]) == (service.uid, 3)
        assert found["start"]["identity_name"] == "her@example.org"
        for event in ("started", "RECEIVED", "ended"):
            who = {"uid": her.uid, "user": her.name, "user_endpoint": "uep.1", "endpoint": "site", "pid": pid}
            assert found[event].items() >= who.items()
        assert "nofile=" in found["started"]["limits"]
        assert found["ended"]["status"] == 0


def test_a_log_that_can_t_be_written_stops_new_work_where_the_policy_says_so(
    program: Installed, machine: Accounts, service: TestUser, her: TestUser
) -> None:
    log = "/proc/gct/audit.log"
    with site(program, machine, service, audit_log=log, audit_required=True) as place:
        monitor = place.start()
        monitor.hello()
        monitor.start("uep.1", her.name)
        assert monitor.next()["code"] == "NO_AUDIT"
    with site(program, machine, service, audit_log=log) as place:
        monitor = place.start()
        monitor.hello()
        assert monitor.running("uep.1", her.name)


def test_a_manager_that_asks_and_never_listens_is_ended_in_the_end(place: Site) -> None:
    monitor = place.start()
    monitor.hello()
    deadline = time.monotonic() + 15
    while monitor.process.poll() is None and time.monotonic() < deadline:
        try:
            monitor.ask("list")
        except BlockingIOError:
            time.sleep(0.001)
        except EndpointError:  # it is gone
            break

    assert monitor.process.wait(10) == 76
    assert "takes nothing any more" in place.log()


def test_two_capabilities_and_that_to_signal_are_enough_for_a_monitor_without_pam(
    place: Site, machine: Accounts, her: TestUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = machine.user()
    for path in (place.folder, place.folder / "policy.json"):
        os.chown(path, runner.uid, runner.gid)
    needed = "-all,+setuid,+setgid,+kill"
    as_runner = ["setpriv", "--reuid", str(runner.uid), "--regid", str(runner.gid), "--clear-groups"]
    as_runner += ["--inh-caps", needed, "--ambient-caps", needed]
    as_root = place.command
    monkeypatch.setattr(place, "command", lambda *arguments: [*as_runner, *as_root(*arguments)])
    monitor = place.start()
    monitor.hello()

    pid = monitor.running("uep.1", her.name)["pid"]

    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{her.uid}\t{her.uid}\t{her.uid}" in status
    assert "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000" in status
    monitor.ask("signal", name="uep.1", signal="TERM")
    assert monitor.wait_for("ended")["status"] == 0
    monitor.start("uep.2", runner.name)
    assert monitor.next()["code"] == "FORBIDDEN_USER"


def test_a_manager_that_asks_without_end_can_t_fill_the_log(place: Site) -> None:
    monitor = place.start()
    monitor.hello()
    deadline = time.monotonic() + 15
    refused = 0
    while refused < 5_100 and time.monotonic() < deadline:
        document = sealed(b"{}")
        texts = {"name": "uep.1", "user": "root", "identity": "", "identity_name": "", "mapped_by": "", "note": ""}
        try:
            monitor.channel.send({"request": "start", **texts}, [document])
        except BlockingIOError:
            refused += monitor.next()["event"] == "refused"
        finally:
            os.close(document)
    began, before = time.monotonic(), len(monitor.events)
    while time.monotonic() - began < 1:
        monitor.next()

    assert len(monitor.events) - before < 200
    assert monitor.process.poll() is None
