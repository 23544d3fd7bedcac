"""What the engines on this machine's own threads and processes share."""

from __future__ import annotations

import asyncio
import contextlib
import os
from abc import abstractmethod
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from endpoint.engines.base import CommonOptions, Engine, EngineTask, FailureCallback, Starts
from endpoint.engines.ledger import Ledger
from endpoint.errors import EndpointError, EngineFailure, TaskRefused

GIB = 2**30
MEMORY = Path("/proc/meminfo")


def available_memory() -> int:
    """Bytes that programs can have without swapping; 0 where the system doesn't tell. (psutil takes 20 ms to load.)"""
    with contextlib.suppress(OSError), MEMORY.open() as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


class Pool(Protocol):
    """What runs the tasks of such an engine: at most `size` at once, in the order of submission."""

    @property
    def size(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    @property
    def busy(self) -> int: ...

    def submit(self, task: EngineTask) -> Future[bytes]: ...

    def give_back(self) -> None: ...

    def close(self) -> None: ...


class PoolEngine(Engine):
    """An engine on a pool of this machine's own."""

    quick_start = True

    def __init__(self, options: CommonOptions, pool: Pool) -> None:
        super().__init__(options)
        self._pool = pool
        self._ledger = Ledger(pool.submit, self._translate, options.max_retries_on_system_failure, self._stop)

    def start(
        self,
        *,
        endpoint_id: str,
        run_dir: Path,
        on_failure: FailureCallback,
        starts: Starts | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._prepare(endpoint_id, run_dir, on_failure, starts)

    def submit(self, task: EngineTask) -> Future[bytes]:
        if task.resource_specification:
            raise TaskRefused(
                f"The endpoint's {type(self).__name__} takes no resource specification",
                hint="Submit without one, or to an endpoint with a GlobusMPIEngine",
            )
        return self._ledger.submit(task)

    @property
    def capacity(self) -> int:
        return self._pool.size

    def cancel(self, task_id: str) -> bool:
        return self._ledger.cancel(task_id)

    @abstractmethod
    def _stop(self, task_id: str, attempt: Future[bytes]) -> None:
        """See `Ledger`."""

    def stop_starting(self) -> None:
        self._pool.give_back()

    def shutdown(self) -> None:
        self._ledger.close(lambda: None)
        self._pool.close()

    def status(self) -> dict[str, Any]:
        size = self._pool.size
        return {
            "engine_type": type(self).__name__,
            "managers": 1,
            "active_managers": 1,
            "total_cores": os.cpu_count() or 1,
            "total_mem": round(available_memory() / GIB, 1),
            "total_core_hrs": 0,
            "total_workers": size,
            "idle_workers": max(0, size - self._pool.busy),
            "pending_tasks": self._pool.waiting,
            "outstanding_tasks": self._ledger.outstanding,
            "total_tasks": self._ledger.total,
            "scaling_enabled": False,
            "max_blocks": 1,
            "min_blocks": 1,
            "max_workers_per_node": size,
            "nodes_per_block": 1,
        }

    def _translate(self, failure: BaseException) -> EndpointError:
        return EngineFailure(
            f"The endpoint's {type(self).__name__} failed to run the task",
            detail=f"{type(failure).__name__}: {failure}",
        )
