"""What the processes of a worker pool share, in plain shared memory.

Parsl has a server process for that, which each worker asks twice for every task.
"""

from __future__ import annotations

import time
from typing import Any

from parsl.multiprocessing import SpawnContext

MOST_WORKERS = 64 * 1024  # of one pool; what is not used takes no memory


class TasksInProgress:
    """Worker id -> the task that it runs, of which only the id is kept. Stands for the dictionary of a `Manager`."""

    def __init__(self) -> None:
        self._ids = SpawnContext.RawArray("q", MOST_WORKERS)  # 0 for none
        self._since = SpawnContext.RawArray("d", MOST_WORKERS)  # of `time.monotonic`, which is one for all processes

    def __setitem__(self, worker_id: int, task: dict[str, Any]) -> None:
        self._since[worker_id] = time.monotonic()
        self._ids[worker_id] = task["task_id"] + 1

    def pop(self, worker_id: int) -> dict[str, Any]:
        """Raises KeyError where the worker runs nothing."""
        task_id = self._ids[worker_id] - 1
        if task_id < 0:
            raise KeyError(worker_id)
        self._ids[worker_id] = 0
        return {"task_id": task_id}

    def running(self, worker_id: int) -> tuple[int, float] | None:
        """The task that a worker runs, and since when; None for none."""
        task_id = self._ids[worker_id] - 1
        return None if task_id < 0 else (task_id, self._since[worker_id])

    def ended(self, worker_id: int) -> None:
        """The result of what the worker ran is sent: it runs nothing any more."""
        self._ids[worker_id] = 0


class OfWorker:
    """The same for a worker that tells of the end of a task itself, when it sends the result."""

    def __init__(self, tasks: TasksInProgress) -> None:
        self._tasks = tasks

    def __setitem__(self, worker_id: int, task: dict[str, Any]) -> None:
        self._tasks[worker_id] = task

    def pop(self, worker_id: int) -> None:
        """It is told already."""


class Shared:
    """Stands for the `Manager` of multiprocessing, as far as Parsl's pool uses it."""

    def dict(self) -> TasksInProgress:
        """For the tasks in progress."""
        return TasksInProgress()

    def Queue(self) -> Any:
        """For monitoring messages."""
        return SpawnContext.Queue()


def share_plainly() -> None:
    """To be called in a pool's own process before Parsl's module runs."""
    SpawnContext.Manager = Shared
