"""What a manager that was taken over, or a user who means harm, tries against monitor, keepers and root's commands."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import Accounts, TestUser
from tests.support.installed import Installed
from tests.support.monitors import RunningMonitor, Site, is_alive, sealed, site, wait_until

DUMPABLE = """
import os, sys, ctypes
from endpoint.privileged.become import Identity, become
uid, gid = map(int, sys.argv[1:])
become(Identity(uid, gid, (gid,)), lambda step: None)
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


@pytest.fixture(scope="module")
def her(machine: Accounts) -> TestUser:
    return machine.user()


@pytest.fixture
def monitor(place: Site) -> RunningMonitor:
    running = place.start()
    running.hello()
    return running


def processes_of(user: TestUser) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == user.uid and is_alive(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


# -- a user, against the keeper ----------------------------------------------------------------------------------------


def test_a_program_that_forks_without_end_is_ended(place: Site, monitor: RunningMonitor, machine: Accounts) -> None:
    bomber = machine.user()
    monitor.running("uep.1", bomber.name, do="bomb", processes=60)
    wait_until(lambda: len(processes_of(bomber)) > 50, "it does not fork")

    monitor.ask("signal", name="uep.1", signal="KILL")

    assert monitor.wait_for("ended")["status"] == -signal.SIGKILL
    assert processes_of(bomber) == []


def test_a_program_that_stops_itself_before_it_runs_can_be_ended(
    place: Site, monitor: RunningMonitor, her: TestUser
) -> None:
    monitor.start("uep.1", her.name, do="stop")
    monitor.wait_for("accepted")
    wait_until(lambda: processes_of(her), "it was not started")

    monitor.ask("signal", name="uep.1", signal="KILL")

    assert monitor.next()["event"] == "failed"
    assert processes_of(her) == []


def test_one_that_is_killed_before_it_is_the_user_s_program_is_no_user_endpoint_that_ran(
    place: Site, monitor: RunningMonitor, her: TestUser
) -> None:
    monitor.start("uep.1", her.name, do="stop")
    monitor.wait_for("accepted")
    wait_until(lambda: processes_of(her), "it was not started")
    for pid in processes_of(her):
        os.kill(pid, signal.SIGKILL)

    event = monitor.next()

    assert event["event"] in ("failed", "running")
    assert is_alive(monitor.process.pid)


def test_a_failure_that_has_no_end_is_cut_off_and_costs_the_keeper_nothing(
    place: Site, monitor: RunningMonitor, her: TestUser
) -> None:
    monitor.start("uep.1", her.name, do="flood")
    monitor.wait_for("accepted")
    wait_until(lambda: processes_of(her), "it was not started")
    keeper = place.facts()["uep.1"]["keeper"]
    time.sleep(0.3)
    status = Path(f"/proc/{keeper}/status").read_text()
    grown = int(status.partition("RssAnon:")[2].split()[0])

    event = monitor.next()

    assert (event["event"], event["step"]) == ("failed", "prepare")
    assert grown < 20 * 1024, "KiB"
    assert processes_of(her) == []


def test_between_becoming_the_user_and_the_user_s_program_nobody_can_look_into_it(
    program: Installed, her: TestUser
) -> None:
    done = subprocess.run(
        [program.python, "-I", "-c", DUMPABLE, str(her.uid), str(her.gid)], capture_output=True, text=True, timeout=30
    )

    assert done.stdout.strip() in ("0", "2"), done.stderr  # PR_GET_DUMPABLE: 1 is what a debugger of the user needs


def test_variables_of_pam_and_files_at_home_load_nothing_into_what_is_not_the_user_s_yet(
    program: Installed, machine: Accounts, service: TestUser, tmp_path: Path
) -> None:
    trap = machine.user()
    tmp_path.chmod(0o755)
    for folder in (tmp_path, trap.home):
        (folder / "json.py").write_text("import os; os._exit(99)\n")
    variables = tmp_path / "env.conf"
    variables.write_text(f'PYTHONPATH DEFAULT="{tmp_path}"\nPYTHONSTARTUP DEFAULT="{tmp_path}/json.py"\n')
    lines = f"account required pam_permit.so\nsession required pam_env.so conffile={variables} readenv=0\n"
    pam = {"enable": True, "service_name": machine.pam_service(lines)}
    with site(program, machine, service, pam=pam) as place:
        monitor = place.start()
        monitor.hello()
        report = trap.home / "report.json"
        monitor.running("uep.1", trap.name, report=str(report))

        assert json.loads(report.read_text())["environment"]["PYTHONPATH"] == str(tmp_path)
        keeper = place.facts()["uep.1"]["keeper"]
        assert str(tmp_path) not in Path(f"/proc/{keeper}/environ").read_text()


# -- the manager, against the monitor ----------------------------------------------------------------------------------


def test_descriptors_that_come_with_requests_do_not_stay(place: Site, monitor: RunningMonitor) -> None:
    def number() -> int:
        return len(os.listdir(f"/proc/{monitor.process.pid}/fd"))

    before = number()
    for _ in range(300):
        monitor.start("uep.1", "root")
        monitor.ask("credentials", sealed(b"x"), name="uep.nobody")
        assert monitor.next()["event"] == "refused"

    wait_until(lambda: number() <= before, "descriptors are left")


def test_words_of_the_manager_can_t_look_like_lines_of_the_monitor(place: Site, monitor: RunningMonitor) -> None:
    forged = "2026-01-01 00:00:00,000 INFO endpoint.privileged.monitor: all is well"
    texts = {"identity": f"i\n{forged}", "identity_name": f"\x1b[2Jn\r\n{forged}", "mapped_by": forged, "note": ""}
    monitor.ask("start", sealed(b"{}"), name="uep.1", user="root", **texts)
    monitor.next()

    lines = place.log().splitlines()
    assert not [line for line in lines if line.startswith("2026-01-01")]
    assert "\x1b" not in place.log()


def test_the_terminal_is_the_manager_s_to_write_and_not_to_read(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    popen = subprocess.Popen

    def with_terminal(command: Any, **options: Any) -> Any:
        return popen(command, **{**options, "stdout": slave, "stderr": slave})

    monkeypatch.setattr(subprocess, "Popen", with_terminal)
    running = place.start()
    monkeypatch.undo()

    for number in (1, 2):
        assert os.path.samestat(os.stat(f"/proc/{running.manager}/fd/{number}"), os.fstat(slave))
        info = Path(f"/proc/{running.manager}/fdinfo/{number}").read_text()
        flags = int(info.partition("flags:")[2].split()[0], 8)
        assert flags & os.O_ACCMODE == os.O_WRONLY
    running.end()
    os.close(master)
    os.close(slave)


def test_a_line_of_the_log_is_not_lost_because_the_manager_made_the_pipe_impatient(program: Installed) -> None:
    reader, writer = os.pipe()
    code = "from endpoint.privileged import lines; lines.info('monitor', 'written after all')"
    os.set_blocking(writer, False)
    filled = 0
    try:
        while True:
            filled += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    process = subprocess.Popen([program.python, "-I", "-c", code], stderr=writer)
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.15)
        if filled:
            filled -= len(os.read(reader, filled))
    os.close(writer)

    assert b"written after all" in os.read(reader, 65536)
    os.close(reader)


def test_another_endpoint_of_the_same_name_does_not_get_the_user_endpoints(
    program: Installed, machine: Accounts, service: TestUser, her: TestUser
) -> None:
    with site(program, machine, service) as first, site(program, machine, machine.user(system=True)) as second:
        monitor = first.start()
        monitor.hello()
        pid = monitor.running("uep.1", her.name)["pid"]
        assert monitor.end_manager() == 0
        second.write_policy({"pam": {"enable": False}, "runtime_directory": str(first.runtime)})

        done = subprocess.run(second.command(), stderr=subprocess.PIPE, text=True, timeout=30)

        assert done.returncode == 78
        assert f"user endpoints of {first.folder / first.name}, which has the same name" in done.stderr
        again = first.start()
        assert [event["pid"] for event in again.hello() if event["event"] == "user-endpoint"] == [pid]


def test_an_audit_log_in_a_directory_of_somebody_else_s_is_not_used(
    program: Installed, machine: Accounts, service: TestUser, her: TestUser
) -> None:
    with site(program, machine, service) as place:
        folder = place.folder / "audit"
        folder.mkdir()
        os.chown(folder, service.uid, service.gid)
        place.write_policy({"pam": {"enable": False}, "audit_log": str(folder / "log"), "audit_required": True})
        monitor = place.start()
        monitor.hello()
        monitor.start("uep.1", her.name)

        event = monitor.next()

        assert event["code"] == "NO_AUDIT"
        assert f"belongs to uid {service.uid}" in event["detail"]


# -- the service user's files, against root's commands -----------------------------------------------------------------


def run(program: Installed, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program.program, "--config-dir", folder, *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )


@pytest.fixture
def folder(tmp_path: Path, service: TestUser) -> Path:
    tmp_path.chmod(0o755)
    folder = tmp_path / "compute" / "lab"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    os.chown(folder, service.uid, service.gid)
    return folder


@pytest.mark.parametrize("name", ["daemon.pid", "endpoint.json", "status.json"])
@pytest.mark.parametrize("kind", ["pipe", "link", "endless"])
def test_root_s_commands_wait_for_no_pipe_follow_no_link_and_read_no_device(
    program: Installed, folder: Path, name: str, kind: str
) -> None:
    path = folder / name
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else "/etc/shadow")

    shadow = Path("/etc/shadow").read_text().splitlines()[0]
    for command in (("status", "lab"), ("list",), ("stop", "lab")):
        done = run(program, folder.parent, *command)
        assert shadow not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_stop_ends_no_process_of_somebody_else_whatever_the_pid_file_says(
    program: Installed, folder: Path, her: TestUser
) -> None:
    for command in (["sleep", "600"], ["setpriv", f"--reuid={her.uid}", "--clear-groups", "sleep", "600"]):
        victim = subprocess.Popen(command)
        fields = Path(f"/proc/{victim.pid}/stat").read_text().rpartition(")")[2].split()
        wait_until(lambda victim=victim: Path(f"/proc/{victim.pid}/comm").read_text() == "sleep\n", "it did not start")
        holder = {"pid": victim.pid, "host": os.uname().nodename, "process_start": int(fields[19])}
        holder["machine"] = Path("/etc/machine-id").read_text().strip() if Path("/etc/machine-id").exists() else None
        holder["boot_id"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        holder["pid_namespace"] = os.stat("/proc/self/ns/pid").st_ino
        (folder / "daemon.pid").write_text(json.dumps(holder))

        done = run(program, folder.parent, "stop", "lab", "--force", "--timeout", "1")

        assert done.returncode != 0
        assert victim.poll() is None, done.stderr
        victim.kill()
        victim.wait()


def test_what_the_manager_says_of_itself_moves_no_cursor_and_breaks_no_command(
    program: Installed, folder: Path, service: TestUser
) -> None:
    sleeper = subprocess.Popen(["setpriv", f"--reuid={service.uid}", "--clear-groups", "sleep", "600"])
    try:
        (folder / "endpoint.json").write_text('{"endpoint_id": "00000000-0000-4000-8000-000000000001"}')
        holder = {"pid": sleeper.pid, "host": os.uname().nodename + "\x1b[2J"}
        (folder / "daemon.pid").write_text(json.dumps(holder))
        entry = {"name": "uep.x.\x1b[31m", "user": "\x1b[2J", "state": "a\nb", "condition": {"broker": "x"}, "pid": []}
        entry["id"] = {"a": "b"}
        (folder / "status.json").write_text(json.dumps({"user_endpoints": [entry, 7, {"name": None}]}))

        for command in (("status", "lab"), ("list",)):
            done = run(program, folder.parent, *command)
            assert done.returncode == 0, done.stderr
            assert "\x1b" not in done.stdout + done.stderr
    finally:
        sleeper.kill()
        sleeper.wait()
