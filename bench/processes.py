"""What the kernel knows of a tree of processes: who belongs to it, its memory, its threads, its processor time."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MARK = "GLOBUS_COMPUTE_USER_DIR"  # each measured tree has a directory of its own in this variable
MIB = 1024 * 1024
TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True)
class Tree:
    """A process and all that it started, whoever their parents are by now.

    root: the PID of the first process; directory: the value of MARK in their environments.
    """

    root: int
    directory: Path

    def pids(self) -> list[int]:
        """Those that run now, the root first.

        Batch scripts put workers into the care of init, and some programs overwrite their environment with a title:
        so both the environment and the parents are looked at.
        """
        children = children_of()
        mark = f"{MARK}={self.directory}".encode()
        alive = [pid for below in children.values() for pid in below]
        found = {pid for pid in alive if pid == self.root or mark in _environment(pid)}
        reached, to_visit = set(), list(found)
        while to_visit:
            pid = to_visit.pop()
            if pid not in reached:
                reached.add(pid)
                to_visit += children[pid]
        return sorted(reached, key=lambda pid: (pid != self.root, pid))

    def pss_mib(self) -> float:
        """Memory in MiB, each shared page counted in parts: the sum over all processes is what they occupy."""
        return sum(pss_bytes(pid) for pid in self.pids()) / MIB

    def threads(self) -> int:
        return sum(_status_number(pid, "Threads:") for pid in self.pids())

    def cpu_seconds(self) -> float:
        """User and system time of all processes, with that of their children that have ended, in seconds."""
        return sum(cpu_seconds_of(pid) for pid in self.pids())

    def end(self, patience: float = 5.0) -> int:
        """Wait up to `patience` seconds for all to end, then kill what is left; returns how many those were."""
        deadline = time.monotonic() + patience
        while (left := self.pids()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(left)


def freeze(tree: Tree) -> list[int]:
    """Stop every process of the tree (SIGSTOP); returns their PIDs, for `thaw`."""
    frozen: list[int] = []
    while new := [pid for pid in tree.pids() if pid not in frozen]:  # again, as one may have started another meanwhile
        _signal_all(new, signal.SIGSTOP)
        frozen += new
    return frozen


def thaw(frozen: Collection[int]) -> float:
    """Let them go on; returns the monotonic time at which the first of them could."""
    began = time.monotonic()
    _signal_all(frozen, signal.SIGCONT)
    return began


def seconds_until_exit(process: subprocess.Popen[bytes], timeout: float) -> float | None:
    """How long a child takes to end from now on; None if it doesn't in time.

    `Popen.wait(timeout)` asks every 50 ms, which is too coarse here.
    """
    began = time.monotonic()
    descriptor = os.pidfd_open(process.pid)
    try:
        readable, _, _ = select.select([descriptor], [], [], timeout)
    finally:
        os.close(descriptor)
    return time.monotonic() - began if readable else None


class PeakMemory:
    """Samples a tree's memory in a thread until the `with` block ends; then `mib` is the largest sum seen."""

    def __init__(self, tree: Tree, period: float = 0.1) -> None:
        self.mib = 0.0
        self._tree = tree
        self._period = period
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory")

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.mib = max(self.mib, self._tree.pss_mib())
            if self._over.wait(self._period):
                return


def _signal_all(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def children_of() -> dict[int, list[int]]:
    """The children of every process that lives, by its PID; an empty list for those without."""
    children: dict[int, list[int]] = defaultdict(list)
    for pid, parent in _parents().items():
        children[parent].append(pid)
    return children


def _parents() -> dict[int, int]:
    """The parent of every process that lives; a zombie is over, though its parent has not asked for it yet."""
    found = {}
    for entry in PROC.iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else []
        if fields and fields[0] not in ("Z", "X"):
            found[int(entry.name)] = int(fields[1])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` from the state on; empty when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()  # the name before may have spaces and brackets


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def cpu_seconds_of(pid: int) -> float:
    """User and system time of one process, with that of its children that have ended, in seconds."""
    fields = _stat(pid)
    if not fields:
        return 0.0
    ended_children = sum(int(field) for field in fields[13:15]) / TICKS
    try:
        # The clock of another process, as clock_getcpuclockid(3) makes its number: `stat` alone has steps of 10 ms.
        return time.clock_gettime((~pid << 3) | 2) + ended_children
    except OSError:
        return sum(int(field) for field in fields[11:13]) / TICKS + ended_children


def pss_bytes(pid: int) -> int:
    """Memory of one process, each shared page counted in parts."""
    try:
        rollup = (PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def _status_number(pid: int, key: str) -> int:
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(key)), 0)
