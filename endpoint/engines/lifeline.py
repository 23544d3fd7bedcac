"""The endpoint's end of the line that its processes on this machine hang on; see `python_exec.tie_to_endpoint`."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

NAME = "engine.alive"


class Lifeline:
    """A FIFO that this process holds open for writing, and nobody writes to.

    When it is closed (by `cut`, or by the kernel when this process ends, however it ends) the kernel kills every
    process group that was tied to it.
    """

    def __init__(self, run_dir: Path) -> None:
        """Make the FIFO in `run_dir`, or in a temporary directory where that file system has none. Raises OSError."""
        self._temporary: Path | None = None
        self.path = run_dir / NAME
        self.group = os.getpgrp()
        run_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        try:
            os.mkfifo(self.path, 0o600)
        except OSError:
            self._temporary = Path(tempfile.mkdtemp(prefix="engine-"))
            self.path = self._temporary / NAME
            os.mkfifo(self.path, 0o600)
        # read and write: opening a FIFO for writing only would wait for a reader
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def arguments(self) -> list[str]:
        """For `python -m endpoint.engines.python_exec`."""
        return ["--lifeline", str(self.path), str(self.group)]

    def cut(self) -> None:
        """Kill whoever hangs on it; a second call does nothing."""
        if self._descriptor >= 0:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(self.path.stat(), os.fstat(self._descriptor)):  # not the one of a successor
                    self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)


def wait_until_ended(pids: Iterable[int], timeout: float) -> list[int]:
    """Wait for processes that need not be children; the ones that run on after `timeout` seconds."""
    if not hasattr(os, "pidfd_open"):
        import psutil

        found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        return [process.pid for process in psutil.wait_procs(found, timeout)[1]]
    poll = select.poll()
    running: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)  # readable when the process has ended, whether or not it was reaped
            running[descriptor] = pid
            poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout
    while running and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            os.close(descriptor)
            del running[descriptor]
    for descriptor in running:
        os.close(descriptor)
    return list(running.values())
