"""A user endpoint that is started again and again in the same directory, and all the processes it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from endpoint.lease import process_start

MARK = "FAULT_RUN"  # an environment variable by which all descendants are found, whoever their parent is by now
STOP_S = 30.0
POLL_S = 0.05

Seen = dict[int, int]  # PID -> when that process was started, in clock ticks: numbers are used again

# Starts the endpoint as a manager does, tells its PID and waits for it.
MANAGER = """
import os, subprocess, sys
document = sys.stdin.read().replace('"PARENT"', str(os.getpid()))
descriptors = [int(fd) for fd in sys.argv[1].split(",") if fd]
child = subprocess.Popen(
    sys.argv[2:], stdin=subprocess.PIPE, stdout=sys.stderr, text=True, start_new_session=True, pass_fds=descriptors
)
print(child.pid, flush=True)
child.stdin.write(document)
child.stdin.close()
child.wait()
"""


class Memory:
    """A file in memory by which a manager gives its endpoint newer credentials, encrypted. A context manager."""

    def __init__(self) -> None:
        self.key = Fernet.generate_key()
        self.descriptor = os.memfd_create("credentials")

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def store(self, registration: Mapping[str, Any]) -> None:
        content = Fernet(self.key).encrypt(json.dumps({"amqp_creds": registration}).encode())
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, content, 0)


class FaultEndpoint:
    """`globus-compute-endpoint _start-user-endpoint uep`, ours or the official one. A context manager that ends it all.

    registration: asked anew at each start.
    prefix: a command in front of the endpoint's own that becomes it by `exec` (`nsenter`, say).
    memory: where renewed credentials are put.
    """

    def __init__(
        self,
        program: Path,
        registration: Callable[[], dict[str, Any]],
        directory: Path,
        config: str,
        *,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        memory: Memory | None = None,
        log: Path,
    ) -> None:
        self._command = [*prefix, str(program), "_start-user-endpoint", "uep"]
        self._registration = registration
        self._directory = directory
        self._config = config
        self._memory = memory
        self._output = log
        self._mark = str(uuid.uuid4())
        self._environment = {
            **os.environ,
            "GLOBUS_COMPUTE_USER_DIR": str(directory),
            # Engines start their helpers by the command's name: the one beside the endpoint must be found first.
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            **(environment or {}),
            MARK: self._mark,
        }
        self._children: list[subprocess.Popen[Any]] = []
        self.manager: subprocess.Popen[Any] | None = None
        self.pid = 0
        self._started = 0  # clock ticks, of the process `pid`
        self.spawned_at = 0.0

    def __enter__(self) -> FaultEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive:
            os.kill(self.pid, signal.SIGTERM)
            self.wait_gone(STOP_S)
        self.end_leftovers()
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()

    @property
    def alive(self) -> bool:
        return bool(self.pid) and process_start(self.pid) == self._started

    def start(self, *, under_manager: bool = False) -> None:
        """Start it; with `under_manager`, as the child of a process of its own, `manager`."""
        (self._directory / "uep").mkdir(mode=0o700, exist_ok=True)  # as managers do
        descriptors = [self._memory.descriptor] if self._memory else []
        command = self._command
        if under_manager:
            command = [sys.executable, "-c", MANAGER, ",".join(map(str, descriptors)), *command]
        with self._output.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if under_manager else output,
                stderr=output,
                env=self._environment,
                cwd=self._output.parent,
                pass_fds=descriptors,
                start_new_session=True,
            )
        self.spawned_at = time.monotonic()
        self._children.append(child)
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin:  # one that ends at once doesn't read it
            child.stdin.write(json.dumps(self._document("PARENT" if under_manager else os.getpid())).encode())
        self.manager = child if under_manager else None
        if under_manager:
            assert child.stdout is not None
            with child.stdout:
                self.pid = int(child.stdout.readline())
        else:
            self.pid = child.pid
        self._started = process_start(self.pid) or 0

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait_gone(STOP_S)

    def terminate(self, timeout: float) -> float:
        """SIGTERM; the seconds until its end. One that has not ended after `timeout` is killed."""
        before = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        if not self.wait_gone(timeout):
            self.kill()
        return time.monotonic() - before

    def kill_manager(self) -> None:
        assert self.manager is not None, "the endpoint was not started under a manager"
        self.manager.kill()
        self.manager.wait()

    def wait_gone(self, timeout: float) -> bool:
        return not remaining({self.pid: self._started}, timeout) if self.alive else True

    def processes(self) -> Seen:
        """All that run now: the endpoint and its descendants, whoever their parents are by now."""
        manager = self.manager.pid if self.manager else None
        numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        started = {pid: process_start(pid) for pid in numbers if pid != manager and self._is_ours(pid)}
        return {pid: when for pid, when in started.items() if when is not None}

    def _is_ours(self, pid: int) -> bool:
        """Whether a process has our environment, or works in our directory: Parsl's write their names over theirs."""
        with contextlib.suppress(OSError):
            if f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return True
            return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(self._output.parent)
        return False

    def end_leftovers(self) -> int:
        """Kill what runs still; how many there were."""
        ended = 0
        while left := self.processes():  # one of them may be starting another
            ended += len(left)
            for pid, started in left.items():
                if process_start(pid) == started:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            remaining(left, STOP_S)
        return ended

    def _document(self, parent: int | str) -> dict[str, Any]:
        document = {"amqp_creds": self._registration(), "config": self._config, "ep_info": {"posix_ppid": parent}}
        if self._memory:
            return {**document, "mem_fd": self._memory.descriptor, "enckey": self._memory.key.decode()}
        return document


def remaining(seen: Seen, timeout: float) -> Seen:
    """Wait until all of these have ended, `timeout` seconds at most; those that run on."""
    deadline = time.monotonic() + timeout
    while True:
        left = {pid: started for pid, started in seen.items() if process_start(pid) == started}
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(POLL_S)


def command_line(pid: int) -> str:
    """The words of a process's command; nothing for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
