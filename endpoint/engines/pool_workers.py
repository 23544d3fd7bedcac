"""The worker processes of a pool, so that one can be ended in the midst of a task and is replaced at once.

Parsl looks after its workers once in a heartbeat. What it has here in the place of each process goes on to live when
the process is replaced, so that it misses nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from parsl.multiprocessing import SpawnContext

REAP_S = 1.0


class PoolWorker:
    """Stands for a process of multiprocessing, as far as Parsl's pool uses it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._process = make()
        self._lock = threading.Lock()
        self._given_up = False
        self.ending = False  # by us: nobody else need see to it

    @property
    def name(self) -> str:
        return str(self._process.name)

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def exitcode(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def start(self) -> None:
        self._process.start()

    def is_alive(self) -> bool:
        return self.ending or bool(self._process.is_alive())

    def terminate(self) -> None:
        """The pool ends."""
        with self._lock:
            self._given_up = True
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def join(self, timeout: float | None = None) -> None:
        self._process.join(timeout)

    def close(self) -> None:
        with suppress(ValueError):  # it runs still
            self._process.close()

    def replace(self) -> None:
        """The process has ended; another one takes its place."""
        with self._lock:
            if not self._given_up:
                self._process.join(REAP_S)
                self._process = self._make()
                self._process.start()
            self.ending = False


class PoolWorkers:
    """All of them, by their numbers; and what they share, known when the first is made."""

    def __init__(self) -> None:
        self._process = SpawnContext.Process
        self.by_number: dict[int, PoolWorker] = {}
        self.results: Any = None
        self.ready: Any = None
        self.tasks: Any = None

    def make(self, *, target: Callable[..., None], args: tuple[Any, ...], name: str) -> PoolWorker:
        """What Parsl calls for a process; see its function `worker` for the arguments."""
        number, _, _, _, self.results, _, self.ready, self.tasks, *_ = args
        worker = PoolWorker(lambda: self._process(target=target, args=args, name=name))
        self.by_number[number] = worker
        return worker


def know_workers() -> PoolWorkers:
    """To be called in a pool's own process before Parsl's module runs."""
    workers = PoolWorkers()
    SpawnContext.Process = workers.make
    return workers
