"""Parsl's pool of workers, started with what it needs of Parsl alone.

Parsl's module runs here, in this one's names: its pool where this is the program, and its workers in the processes
that Python's multiprocessing starts from the same program.
"""

from __future__ import annotations

import importlib.util

from endpoint.engines.deferred import defer_parsl

PARSLS = "parsl.executors.high_throughput.process_worker_pool"

if __name__ in ("__main__", "__mp_main__"):
    defer_parsl()
    spec = importlib.util.find_spec(PARSLS)
    assert spec is not None
    exec(spec.loader.get_code(PARSLS), globals())  # type: ignore[union-attr]  # noqa: S102 - as `python -m` does
