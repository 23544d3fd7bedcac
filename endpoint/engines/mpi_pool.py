"""Parsl's worker pool with another way to divide a block's nodes among MPI tasks.

Parsl's own loses tasks: it recurses without end while a waiting task doesn't fit, and forgets one that begins to wait
at the moment when the last running one ends. Here tasks begin in the order in which they came, so that a task that
wants many nodes gets its turn.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from parsl.app.errors import RemoteExceptionWrapper
from parsl.executors.high_throughput.mpi_resource_management import MPINodesUnavailable, MPITaskScheduler
from parsl.multiprocessing import SpawnContext
from parsl.serialize import serialize

from endpoint.engines.worker_pool import become_parsls, prepare

LAUNCHERS_PATIENCE_S, LOOK_S = 3.0, 0.02


class InOrder(MPITaskScheduler):  # type: ignore[misc]
    """First come, first served. `put_task` and `get_result` are called from a thread each."""

    def __init__(self, *queues: Any) -> None:
        super().__init__(*queues)
        self._turn = threading.Lock()
        self._waiting: deque[dict[str, Any]] = deque()

    def put_task(self, task_package: dict[str, Any]) -> None:
        """Give the task to a worker as soon as its nodes are free."""
        if _wanted(task_package) > len(self.available_nodes):
            self._refuse(task_package)
            return
        with self._turn:
            self._waiting.append(task_package)
            self._begin()

    def withdraw(self, task_id: int) -> bool:
        """Forget a task that waits for nodes; whether there is one."""
        with self._turn:
            found = [task for task in self._waiting if task["task_id"] == task_id]
            for task in found:
                self._waiting.remove(task)
                self._map_tasks_to_nodes[task_id] = []  # `get_result` asks for it when the answer comes
            self._begin()
        return bool(found)

    def _schedule_backlog_tasks(self) -> None:
        """Called by `get_result` when nodes became free."""
        with self._turn:
            self._begin()

    def _begin(self) -> None:
        while self._waiting and _wanted(self._waiting[0]) <= self._free_node_counter.value:
            super().put_task(self._waiting.popleft())

    def _refuse(self, task_package: dict[str, Any]) -> None:
        """Answer a task that would wait for ever: the block has fewer nodes than the configuration says."""
        error = MPINodesUnavailable(_wanted(task_package), len(self.available_nodes))
        self._map_tasks_to_nodes[task_package["task_id"]] = []  # `get_result` asks for it
        answer = {
            "type": "result",
            "task_id": task_package["task_id"],
            "exception": serialize(RemoteExceptionWrapper(type(error), error, None)),
        }
        self.pending_result_q.put(pickle.dumps(answer))


class Leader(SpawnContext.Process):  # type: ignore[misc]
    """A worker with a process group of its own: when it has died, what its task has started is ended with it.

    Else the ranks of a lost task would run on, on nodes that the next task gets.
    """

    ended = False

    def is_alive(self) -> bool:
        """Asked by the pool before it gives up the worker's task."""
        alive: bool = super().is_alive()
        if not alive and not self.ended:
            self.ended = True
            _end_group(self.pid)
        return alive


def _end_group(group: int) -> None:
    """Launchers end their ranks when they are asked to end, not when they are killed."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGTERM)
        patience = time.monotonic() + LAUNCHERS_PATIENCE_S
        while time.monotonic() < patience:
            os.killpg(group, 0)
            threading.Event().wait(LOOK_S)
        os.killpg(group, signal.SIGKILL)


def _wanted(task_package: dict[str, Any]) -> int:
    nodes: int = task_package["context"]["resource_spec"]["num_nodes"]
    return nodes


if __name__ in ("__main__", "__mp_main__"):
    if __name__ == "__main__":
        SpawnContext.Process = Leader
        prepare(sys.argv, InOrder)
    else:
        os.setpgid(0, 0)  # see `Leader`
    become_parsls(globals())
