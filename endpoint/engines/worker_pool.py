"""Parsl's pool of workers, started with what it needs of Parsl alone.

Parsl's module runs here, in this one's names: its pool where this is the program, and its workers in the processes
that Python's multiprocessing starts from the same program.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import uuid
from typing import Any

from endpoint.engines.cancel_names import STOPPING_POOL
from endpoint.engines.deferred import defer_parsl
from endpoint.engines.memory import keep_freed_memory
from endpoint.engines.pool_results import with_direct_results
from endpoint.engines.python_exec import guard_in_job
from endpoint.engines.quiet import log_what_is_kept
from endpoint.engines.semaphores import name_semaphores
from endpoint.engines.steady import keep_time_steady

PARSLS = "parsl.executors.high_throughput.process_worker_pool"


def prepare(arguments: list[str], in_order: type[Any] | None = None) -> None:
    """What a pool's own process does before Parsl's module runs in it, with these arguments.

    in_order: what divides the nodes among MPI tasks, in the place of Parsl's class.
    """
    guard_in_job()
    from parsl.executors.high_throughput import mpi_resource_management as schedulers

    from endpoint.engines.pool_cancel import stoppable
    from endpoint.engines.pool_shared import share_plainly
    from endpoint.engines.pool_workers import know_workers

    keep_time_steady()
    share_plainly()
    workers = know_workers()
    if in_order is None:
        schedulers.TaskScheduler = stoppable(schedulers.TaskScheduler, workers, lambda _self, _task_id: False)
    else:
        schedulers.MPITaskScheduler = stoppable(in_order, workers, lambda self, task_id: bool(self.withdraw(task_id)))
    places = [word.partition("=")[2] for word in arguments if word.startswith("--logdir=")]
    name_semaphores(places[0] if places else "")
    arguments.append(f"--uid={uuid.uuid4().hex[:12]}{STOPPING_POOL}")


def become_parsls(names: dict[str, Any]) -> None:
    """Run Parsl's module in the names of the program: the pool, or what a worker needs."""
    spec = importlib.util.find_spec(PARSLS)
    assert spec is not None
    exec(spec.loader.get_code(PARSLS), names)  # type: ignore[union-attr]  # noqa: S102 - as `python -m` does
    names["worker"] = with_direct_results(names["worker"])  # for a worker, which finds it by its name


if __name__ in ("__main__", "__mp_main__"):
    defer_parsl()
    keep_freed_memory()
    # A worker of Parsl's logs three lines for each task; they are for those who debug.
    log_what_is_kept(least=logging.WARNING if __name__ == "__mp_main__" else logging.INFO)
    if __name__ == "__main__":
        prepare(sys.argv)
    become_parsls(globals())
