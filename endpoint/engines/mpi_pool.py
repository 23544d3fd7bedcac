"""Parsl's worker pool with another way to divide a block's nodes among MPI tasks.

Parsl's own loses tasks: it recurses without end while a waiting task doesn't fit, and forgets one that begins to wait
at the moment when the last running one ends. Here tasks begin in the order in which they came, so that a task that
wants many nodes gets its turn.
"""

from __future__ import annotations

import pickle
import runpy
import sys
import threading
from collections import deque
from typing import Any

from parsl.app.errors import RemoteExceptionWrapper
from parsl.executors.high_throughput import mpi_resource_management
from parsl.executors.high_throughput.mpi_resource_management import MPINodesUnavailable, MPITaskScheduler
from parsl.serialize import serialize

from endpoint.engines.worker_pool import PARSLS, prepare


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


def _wanted(task_package: dict[str, Any]) -> int:
    nodes: int = task_package["context"]["resource_spec"]["num_nodes"]
    return nodes


def main() -> None:
    """Run Parsl's module as a script, with our scheduler in the place of its own."""
    prepare(sys.argv)
    mpi_resource_management.MPITaskScheduler = InOrder
    runpy.run_module(PARSLS, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
