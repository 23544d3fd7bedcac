"""ThreadPoolEngine: tasks in threads of the user endpoint itself; for small, well-behaved functions.

A task changes the current directory. On Linux a thread can have one of its own, so that neither the endpoint nor the
other tasks see it. Environment variables are the process's: `GC_TASK_UUID` is that of the task that began last.
"""

from __future__ import annotations

import ctypes
import logging
import os
from concurrent.futures import Future
from typing import Any

from endpoint.engines.base import CommonOptions, EngineTask
from endpoint.engines.cancelled import goes_on
from endpoint.engines.pools import PoolEngine
from endpoint.engines.slots import Slot, SlotPool

log = logging.getLogger(__name__)

CLONE_FS = 0x200  # linux/sched.h: current directory and umask


class ThreadPoolEngine(PoolEngine):
    """Options: `label`, `max_workers` (cores + 4, 32 at the most), `thread_name_prefix` (the label)."""

    def __init__(
        self,
        options: CommonOptions,
        *,
        label: str,
        max_workers: int | None = None,
        thread_name_prefix: str | None = None,
    ) -> None:
        workers = min(32, (os.cpu_count() or 1) + 4) if max_workers is None else max_workers
        self._slots = SlotPool(thread_name_prefix or label, workers, self._make_slot, self._may_begin)
        super().__init__(options, self._slots)

    def _make_slot(self) -> Slot:
        return _ThreadSlot(self)

    def _may_begin(self, task_id: str) -> bool:
        return self._starts.started(task_id)

    def _stop(self, task_id: str, attempt: Future[bytes]) -> None:
        if not self._slots.cancel(attempt) and not attempt.done():
            why = "a function in a thread (the endpoint's ThreadPoolEngine) can't be stopped"
            self._ledger.let_go(task_id, goes_on(self._slots.seconds(attempt), why))

    def options_for_worker(self, task: EngineTask) -> dict[str, Any]:
        """What the slot hands to the worker."""
        return self._worker_options(task)


class _ThreadSlot:
    def __init__(self, engine: ThreadPoolEngine) -> None:
        self._engine = engine
        if not own_directory() and engine.options.run_in_sandbox:
            log.warning("This system's threads share one current directory: sandboxes don't keep tasks apart")

    def run(self, task: EngineTask) -> bytes:
        from endpoint.worker.run import run_task

        return run_task(task.body, self._engine.options_for_worker(task))

    def close(self) -> None:
        """Nothing to end: the function owns the thread."""


def own_directory() -> bool:
    """Give the calling thread a current directory of its own; False where the system can't."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError):
        return False
    return bool(unshare(CLONE_FS) == 0)
