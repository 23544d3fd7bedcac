"""ProcessPoolEngine: tasks in processes of this machine.

The processes are started afresh (never forked from a process that has threads, which can hang). The engine knows which
process has which task, so one that dies takes its own task with it and nothing else; another one takes its place.
"""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import Future
from pathlib import Path

from endpoint.engines.base import CommonOptions, FailureCallback, Starts
from endpoint.engines.lifeline import Lifeline
from endpoint.engines.pools import PoolEngine
from endpoint.engines.process_link import WorkerProcess
from endpoint.engines.process_pool import ProcessPool
from endpoint.errors import EngineFailure


class ProcessPoolEngine(PoolEngine):
    """Options: `label`, `max_workers` (the cores of this machine), `max_tasks_per_child` (no limit), `cancel_grace`."""

    def __init__(
        self,
        options: CommonOptions,
        *,
        label: str,
        cancel_grace: float,
        max_workers: int | None = None,
        max_tasks_per_child: int | None = None,
    ) -> None:
        del label  # of threads, which this engine has not
        size = len(os.sched_getaffinity(0)) if max_workers is None else max_workers
        self._processes = ProcessPool(size, max_tasks_per_child, cancel_grace)
        super().__init__(options, self._processes)
        self._lifeline: Lifeline | None = None

    def start(
        self,
        *,
        endpoint_id: str,
        run_dir: Path,
        on_failure: FailureCallback,
        starts: Starts | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().start(endpoint_id=endpoint_id, run_dir=run_dir, on_failure=on_failure, starts=starts, loop=loop)
        try:
            self._lifeline = lifeline = Lifeline(run_dir)
        except OSError as error:
            raise EngineFailure(f"The engine can't use its run directory {run_dir}: {error.strerror}") from error
        self._processes.open(lambda: self._make_process(lifeline), self._starts, loop)

    def shutdown(self) -> None:
        super().shutdown()
        if self._lifeline is not None:
            self._lifeline.cut()

    def _stop(self, task_id: str, attempt: Future[bytes]) -> None:
        del task_id
        self._processes.cancel(attempt)

    def _make_process(self, lifeline: Lifeline) -> WorkerProcess:
        try:
            page = self._starts.new_page()
        except OSError as error:
            raise EngineFailure(f"A new worker process can't note what it begins: {error.strerror}") from error
        return WorkerProcess(lifeline, json.dumps(self._common_worker_options()).encode(), page)
