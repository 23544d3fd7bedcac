"""Parsl's pool of workers, started with what it needs of Parsl alone.

Parsl's module runs here, in this one's names: its pool where this is the program, and its workers in the processes
that Python's multiprocessing starts from the same program.
"""

from __future__ import annotations

import importlib.util
import logging
import sys

from endpoint.engines.deferred import defer_parsl
from endpoint.engines.memory import keep_freed_memory
from endpoint.engines.pool_results import with_direct_results
from endpoint.engines.quiet import log_what_is_kept
from endpoint.engines.semaphores import name_semaphores
from endpoint.engines.steady import keep_time_steady

PARSLS = "parsl.executors.high_throughput.process_worker_pool"


def prepare(arguments: list[str]) -> None:
    """What a pool's own process does before Parsl's module runs in it."""
    from endpoint.engines.pool_shared import share_plainly

    keep_time_steady()
    share_plainly()
    places = [word.partition("=")[2] for word in arguments if word.startswith("--logdir=")]
    name_semaphores(places[0] if places else "")


if __name__ in ("__main__", "__mp_main__"):
    defer_parsl()
    keep_freed_memory()
    # A worker of Parsl's logs three lines for each task; they are for those who debug.
    log_what_is_kept(least=logging.WARNING if __name__ == "__mp_main__" else logging.INFO)
    if __name__ == "__main__":
        prepare(sys.argv)
    spec = importlib.util.find_spec(PARSLS)
    assert spec is not None
    exec(spec.loader.get_code(PARSLS), globals())  # type: ignore[union-attr]  # noqa: S102 - as `python -m` does
    worker = with_direct_results(globals()["worker"])  # for a worker, which finds it by its name
