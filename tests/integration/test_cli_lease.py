"""The PID file with real processes that hold it, die, and race for it."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from endpoint.errors import AlreadyRunning, ConfigError, ExitStatus
from endpoint.lease import Lease, open_process, read_lease

HOLD = """
import sys
from pathlib import Path
from endpoint.errors import AlreadyRunning
from endpoint.lease import Lease
sys.stdin.readline()
try:
    lease = Lease.take(Path(sys.argv[1]))
except AlreadyRunning:
    print("refused", flush=True)
else:
    print("taken", flush=True)
    sys.stdin.readline()
    lease.release()
"""


class HoldingProcess:
    """A process that takes the lease when told to, and releases it when told again."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def take(self) -> None:
        self.go()
        assert self.answer() == "taken"

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "ep" / "daemon.pid"


@pytest.fixture(autouse=True)
def directory(pid_file: Path) -> None:
    pid_file.parent.mkdir()


@pytest.fixture
def holder(pid_file: Path) -> Iterator[HoldingProcess]:
    process = HoldingProcess(pid_file)
    yield process
    process.end()


def test_lease_names_its_holder_and_goes_with_it(pid_file: Path) -> None:
    with Lease.take(pid_file):
        state = read_lease(pid_file)
        assert (state.state, state.pid, state.host) == ("running", os.getpid(), os.uname().nodename)
        assert json.loads(pid_file.read_text())["boot_id"]
    assert not pid_file.exists()
    assert read_lease(pid_file).state == "none"


def test_lease_of_a_living_process_is_refused_with_its_number(pid_file: Path, holder: HoldingProcess) -> None:
    holder.take()
    with pytest.raises(AlreadyRunning) as caught:
        Lease.take(pid_file)
    assert caught.value.exit_status is ExitStatus.ALREADY_RUNNING
    assert f"process {holder.process.pid} on this host" in caught.value.failure.reason
    assert "stop ep" in caught.value.failure.hint
    assert read_lease(pid_file).pid == holder.process.pid, "the holder's file was not touched"


def test_lease_of_a_killed_process_is_taken_over(
    pid_file: Path, holder: HoldingProcess, caplog: pytest.LogCaptureFixture
) -> None:
    holder.take()
    holder.end()
    assert read_lease(pid_file).state == "stale"
    with Lease.take(pid_file):
        assert read_lease(pid_file).pid == os.getpid()
    assert f"process {holder.process.pid}" in caplog.text


def test_lease_that_was_released_can_be_taken_by_the_next(pid_file: Path, holder: HoldingProcess) -> None:
    holder.take()
    holder.go()
    assert holder.process.wait(10) == 0
    with Lease.take(pid_file):
        pass


def test_lease_goes_to_exactly_one_of_many_that_start_at_once(pid_file: Path) -> None:
    processes = [HoldingProcess(pid_file) for _ in range(6)]
    try:
        for process in processes:
            process.go()
        answers = [process.answer() for process in processes]
        assert sorted(answers) == ["refused"] * 5 + ["taken"]
    finally:
        for process in processes:
            process.end()


def test_lease_of_another_host_is_refused_with_its_name_and_the_way_out(pid_file: Path) -> None:
    with Lease.take(pid_file):
        document = json.loads(pid_file.read_text())
    pid_file.write_text(json.dumps(document | {"host": "login2.example", "boot_id": "other", "machine": "other"}))
    with pytest.raises(AlreadyRunning) as caught:
        Lease.take(pid_file)
    assert "login2.example" in caught.value.failure.reason
    assert str(pid_file) in caught.value.failure.hint
    assert read_lease(pid_file).host == "login2.example"


def test_lease_of_another_host_that_stopped_renewing_is_taken_over(pid_file: Path) -> None:
    with Lease.take(pid_file):
        document = json.loads(pid_file.read_text())
    pid_file.write_text(json.dumps(document | {"host": "login2.example", "boot_id": "other", "kept_every": 15}))
    os.utime(pid_file, (1, 1))
    with Lease.take(pid_file):
        assert read_lease(pid_file).pid == os.getpid()


def test_official_pid_file_that_is_touched_is_refused(pid_file: Path) -> None:
    pid_file.write_text("4194305\n")
    with pytest.raises(AlreadyRunning) as caught:
        Lease.take(pid_file)
    assert "4194305" in caught.value.failure.reason


def test_official_pid_file_that_was_left_behind_is_taken_over(pid_file: Path) -> None:
    pid_file.write_text("4194305\n")
    os.utime(pid_file, (1, 1))
    with Lease.take(pid_file):
        assert read_lease(pid_file).state == "running"


def test_file_that_is_no_pid_file_is_taken_over(pid_file: Path) -> None:
    pid_file.write_text("what is this?")
    with Lease.take(pid_file):
        assert read_lease(pid_file).pid == os.getpid()


def test_lease_in_a_directory_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Lease.take(tmp_path / "nowhere" / "daemon.pid")
    assert read_lease(tmp_path / "nowhere" / "daemon.pid").state == "none"


def test_lease_that_somebody_else_took_is_not_removed_on_release(pid_file: Path) -> None:
    lease = Lease.take(pid_file)
    pid_file.unlink()
    pid_file.write_text("4194305\n")
    lease.release()
    assert pid_file.read_text() == "4194305\n"


def test_child_made_by_fork_leaves_the_lease_alone(pid_file: Path) -> None:
    with Lease.take(pid_file) as lease:
        child = os.fork()
        if child == 0:
            lease.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert read_lease(pid_file).state == "running"


def test_lock_of_a_killed_process_does_not_live_on_in_what_it_has_forked(pid_file: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from endpoint.lease import Lease\n"
        "lease = Lease.take(Path(sys.argv[1]))\n"
        "if os.fork() == 0:\n"
        "    print(os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(pid_file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process.stdout:
        child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        with Lease.take(pid_file):
            assert read_lease(pid_file).pid == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def keep_until(lease: Lease, lost: Callable[[], None], condition: Callable[[], bool]) -> None:
    keeping = asyncio.create_task(lease.keep(lost, every=0.01))
    await asyncio.to_thread(wait_for, condition)
    keeping.cancel()


def test_kept_lease_is_renewed_and_says_so(pid_file: Path) -> None:
    with Lease.take(pid_file) as lease:
        os.utime(pid_file, (1, 1))
        asyncio.run(keep_until(lease, lambda: None, lambda: pid_file.stat().st_mtime > 1))
        wait_for(lambda: json.loads(pid_file.read_text())["kept_every"] >= 1)


def test_kept_lease_tells_when_its_file_was_removed(pid_file: Path) -> None:
    told: list[bool] = []
    with Lease.take(pid_file) as lease:
        pid_file.unlink()
        asyncio.run(keep_until(lease, lambda: told.append(True), lambda: bool(told)))
    assert told == [True]


def test_process_of_a_lease_is_opened_so_that_its_end_is_seen(pid_file: Path, holder: HoldingProcess) -> None:
    holder.take()
    descriptor = open_process(read_lease(pid_file))
    assert descriptor is not None
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        readable, _, _ = select.select([descriptor], [], [], 10)
        assert readable
    finally:
        os.close(descriptor)


def test_process_that_is_gone_is_not_opened(pid_file: Path, holder: HoldingProcess) -> None:
    holder.take()
    state = read_lease(pid_file)
    holder.end()
    assert open_process(state) is None
