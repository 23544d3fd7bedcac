"""A worker pool's part of a cancellation: it drops a task that waits, and ends the worker that runs one.

Only the processes of that task are ended. A worker shares a pipe and two locks with the others; who ends it holds these
locks, so that it is not in the midst of anything there.
"""

from __future__ import annotations

import logging
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from parsl.app.errors import RemoteExceptionWrapper
from parsl.serialize import serialize

from endpoint.engines.cancel_names import CANCEL, Stopped
from endpoint.engines.pool_workers import PoolWorker, PoolWorkers
from endpoint.engines.tree import Tree

log = logging.getLogger("parsl")  # which has a file here

Withdraw = Callable[[Any, int], bool]

ROUND_S = 0.02
LOCK_S = 5.0  # a worker that was killed from outside may have died with a lock
AT_ONCE_S = 0.05  # in which a process ends that SIGTERM ends
FOUND_S = 10.0  # a task that is nowhere for so long was answered before the cancellation came


@dataclass
class _Wanted:
    """A task to be found. Seconds of `time.monotonic`.

    looked: whether it is not among those that wait: from there they go to the workers, never back.
    """

    grace: float
    until: float
    looked: bool = False


@dataclass
class _Ending:
    """A worker on its way out, with what its task has started."""

    task_id: int
    grace: float
    number: int
    worker: PoolWorker
    since: float
    asked: float
    tree: Tree


class PoolCancel:
    """Has a thread while there is something to do. `add` may be called from any thread."""

    def __init__(self, workers: PoolWorkers, tasks: Any, results: Any, *, withdraw: Callable[[int], bool]) -> None:
        """tasks, results: the pool's queues. withdraw: forgets a task that is in none yet; whether there was one."""
        self._workers = workers
        self._tasks = tasks
        self._results = results
        self._withdraw = withdraw
        self._lock = threading.Lock()
        self._wanted: dict[int, _Wanted] = {}
        self._endings: list[_Ending] = []
        self._thread: threading.Thread | None = None
        self._pause = threading.Event()  # which nobody sets

    def add(self, task_id: int, grace: float) -> None:
        """Have a task stopped. Its answer comes with those of the others."""
        with self._lock:
            self._wanted.setdefault(task_id, _Wanted(grace, time.monotonic() + FOUND_S))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cancel", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._drop_waiting()
                self._find_running()
                for ending in list(self._endings):
                    if self._see_to(ending):
                        self._endings.remove(ending)
            except Exception:
                log.exception("A task could not be stopped; trying again")
            with self._lock:
                now = time.monotonic()
                for task_id in [one for one, wanted in self._wanted.items() if wanted.until < now]:
                    del self._wanted[task_id]
                if not self._wanted and not self._endings:
                    self._thread = None
                    return
            self._pause.wait(ROUND_S)

    def _take(self, task_id: int) -> _Wanted | None:
        with self._lock:
            return self._wanted.pop(task_id, None)

    # -- not begun -----------------------------------------------------------------------------------------------------

    def _drop_waiting(self) -> None:
        with self._lock:
            wanted = {task_id: one for task_id, one in self._wanted.items() if not one.looked}
        if not wanted:
            return
        for task_id in wanted:
            if self._withdraw(task_id) and self._take(task_id):
                self._answer(task_id, Stopped())
        kept: list[dict[str, Any]] = []
        with suppress(queue.Empty):
            for _ in range(self._tasks.qsize()):
                task = self._tasks.get(timeout=ROUND_S)
                if task["task_id"] in wanted and self._take(task["task_id"]):
                    self._answer(task["task_id"], Stopped())
                else:
                    kept.append(task)
            for one in wanted.values():
                one.looked = True
        for task in kept:
            self._tasks.put(task)

    # -- running -------------------------------------------------------------------------------------------------------

    def _find_running(self) -> None:
        for number, worker in list(self._workers.by_number.items()):
            running = self._workers.tasks.running(number)
            if running is not None and running[0] in self._wanted and (wanted := self._take(running[0])):
                self._begin_to_end(number, worker, running, wanted.grace)

    def _begin_to_end(self, number: int, worker: PoolWorker, running: tuple[int, float], grace: float) -> None:
        with self._alone():
            if self._workers.tasks.running(number) != running:
                return  # it has answered
            worker.ending = True
            tree = Tree(worker.pid)
            ending = _Ending(running[0], grace, number, worker, running[1], time.monotonic(), tree)
            self._endings.append(ending)
            if grace > 0:
                tree.signal(signal.SIGTERM)
                deadline = time.monotonic() + AT_ONCE_S
                while tree.root_runs and time.monotonic() < deadline:
                    self._pause.wait(0.002)

    def _see_to(self, ending: _Ending) -> bool:
        """Whether it is over."""
        running = self._workers.tasks.running(ending.number) == (ending.task_id, ending.since)
        if ending.tree.root_runs and not running:
            ending.worker.ending = False  # it has ended well, and has answered
            return True
        killed = ending.tree.runs
        if killed and time.monotonic() < ending.asked + ending.grace:
            return False
        with self._alone():
            ending.tree.kill()
            if self._workers.tasks.running(ending.number) == (ending.task_id, ending.since):
                self._workers.tasks.ended(ending.number)
                seconds = ending.asked - ending.since
                self._answer(ending.task_id, Stopped(seconds, ending.grace if killed else None))
        ending.worker.replace()
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no worker writes a result, or counts itself."""
        with ExitStack() as held:
            for lock in (self._workers.results._wlock, self._workers.ready.get_lock()):
                if lock.acquire(timeout=LOCK_S):
                    held.callback(lock.release)
            yield

    def _answer(self, task_id: int, stopped: Stopped) -> None:
        exception = serialize(RemoteExceptionWrapper(Stopped, stopped, None))
        answer = {"type": "result", "task_id": task_id, "exception": exception}
        self._results.put(pickle.dumps(answer))


def stoppable(scheduler: type[Any], workers: PoolWorkers, withdraw: Withdraw) -> type[Any]:
    """A class of Parsl's that hands tasks to workers, with cancellations among the tasks.

    withdraw: forgets a task that an object of the class keeps to itself; whether there was one.
    """

    class Stoppable(scheduler):  # type: ignore[misc]
        def __init__(self, *queues: Any) -> None:
            super().__init__(*queues)
            self._cancel = PoolCancel(workers, *queues, withdraw=lambda task_id: withdraw(self, task_id))

        def put_task(self, task: dict[str, Any]) -> None:
            if CANCEL in task:
                self._cancel.add(task["task_id"], task[CANCEL])
            else:
                super().put_task(task)

    return Stoppable
