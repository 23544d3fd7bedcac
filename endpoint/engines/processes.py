"""ProcessPoolEngine: tasks in processes of this machine, one process a slot.

The processes are started afresh (never forked from a process that has threads, which can hang). The engine knows which
process has which task, so one that dies takes its own task with it and nothing else; the slot starts another one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from endpoint.engines.base import CommonOptions, EngineTask, FailureCallback, Starts
from endpoint.engines.lifeline import Lifeline
from endpoint.engines.pools import PoolEngine
from endpoint.engines.slots import Slot
from endpoint.errors import EngineFailure, TaskLost

log = logging.getLogger(__name__)

TERM_PATIENCE = 2.0  # seconds between asking a process to end and making it


class ProcessPoolEngine(PoolEngine):
    """Options: `label`, `max_workers` (the cores of this machine), `max_tasks_per_child` (no limit)."""

    def __init__(
        self,
        options: CommonOptions,
        *,
        label: str,
        max_workers: int | None = None,
        max_tasks_per_child: int | None = None,
    ) -> None:
        self.max_tasks_per_child = max_tasks_per_child
        super().__init__(options, label, len(os.sched_getaffinity(0)) if max_workers is None else max_workers)
        self._lifeline: Lifeline | None = None

    def start(
        self, *, endpoint_id: str, run_dir: Path, on_failure: FailureCallback, starts: Starts | None = None
    ) -> None:
        super().start(endpoint_id=endpoint_id, run_dir=run_dir, on_failure=on_failure, starts=starts)
        try:
            self._lifeline = Lifeline(run_dir)
        except OSError as error:
            raise EngineFailure(f"The engine can't use its run directory {run_dir}: {error.strerror}") from error

    def shutdown(self) -> None:
        super().shutdown()
        if self._lifeline is not None:
            self._lifeline.cut()

    def _make_slot(self) -> Slot:
        if self._lifeline is None:
            raise EngineFailure("The engine wasn't started")
        return _ProcessSlot(self, self._lifeline)

    def options_for_worker(self, task: EngineTask) -> dict[str, Any]:
        """What the slot sends to the worker."""
        return self._worker_options(task)


class _ProcessSlot:
    def __init__(self, engine: ProcessPoolEngine, lifeline: Lifeline) -> None:
        self._engine = engine
        self._lifeline = lifeline
        self._lock = threading.Lock()
        self._closed = False
        self._worker: _Worker | None = None

    def run(self, task: EngineTask) -> bytes:
        options = json.dumps(self._engine.options_for_worker(task)).encode()
        worker = self._ready_worker()
        try:
            return worker.run(options, task.body)
        except (EOFError, OSError) as error:
            how = worker.end(0)
            with self._lock:
                self._worker = None
                closed = self._closed
            worker.release()
            if closed:
                raise TaskLost("The endpoint stopped before the task was done") from error
            log.warning("A worker process was lost: %s", how, extra={"task": task.task_id})
            raise TaskLost(f"The worker process that ran the task {how}") from error

    def close(self) -> None:
        with self._lock:
            self._closed = True
            worker = self._worker
        if worker is not None:
            worker.end(TERM_PATIENCE)

    def _ready_worker(self) -> _Worker:
        """The slot's process; another one where the last has ended while it had nothing to do."""
        with self._lock:
            if self._closed:
                raise TaskLost("The endpoint stopped before the task ran")
            most = self._engine.max_tasks_per_child
            if self._worker is not None and (self._worker.ended or self._worker.tasks == most):
                self._worker.end(0)
                self._worker.release()
                self._worker = None
            if self._worker is None:
                self._worker = _Worker(self._lifeline)
            worker = self._worker
        worker.wait_ready()
        return worker


class _Worker:
    """One process, its group and its socket."""

    def __init__(self, lifeline: Lifeline) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-m", "endpoint.engines.process_worker", str(theirs.fileno())]
            try:
                self._process = subprocess.Popen(
                    [*command, *lifeline.arguments[1:]],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineFailure(f"The engine can't start a worker process: {error.strerror}") from error
            self._connection = Connection(ours.detach())
        self.tasks = 0
        self._ready = False
        self._answers = select.poll()
        self._answers.register(self._connection, select.POLLIN)
        # The end of the socket may come late: a process that the task forked holds it open, too.
        self._exit = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else -1
        if self._exit >= 0:
            self._answers.register(self._exit, select.POLLIN)

    @property
    def ended(self) -> bool:
        """Whether the process is gone; it is not reaped, so that its group stays its own."""
        if self._process.returncode is not None:
            return True
        found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def wait_ready(self) -> None:
        """Raises EngineFailure when the process ends instead of getting ready."""
        if self._ready:
            return
        try:
            self._receive()
        except (EOFError, OSError) as error:
            raise EngineFailure(f"A new worker process {self.end(0)}") from error
        self._ready = True

    def run(self, options: bytes, body: bytes) -> bytes:
        """Raises EOFError or OSError when the process ends before it answers."""
        self.tasks += 1
        self._connection.send_bytes(options)
        self._connection.send_bytes(body)
        return self._receive()

    def _receive(self) -> bytes:
        if self._connection.fileno() not in {descriptor for descriptor, _ in self._answers.poll()}:
            raise EOFError
        return self._connection.recv_bytes()

    def end(self, patience: float) -> str:
        """End the process and all of its group; says how it ended, as the rest of a sentence."""
        if self._process.returncode is None:
            if patience:
                self._signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience)
            self._signal(signal.SIGKILL)
        code = self._process.wait()
        return f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with status {code}"

    def release(self) -> None:
        """Close the descriptors; only the thread that reads from them may."""
        self._connection.close()
        if self._exit >= 0:
            os.close(self._exit)
            self._exit = -1

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name}, perhaps for want of memory" if number == signal.SIGKILL else name
