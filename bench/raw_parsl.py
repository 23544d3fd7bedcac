"""Parsl's HighThroughputExecutor used directly, with the options of the engine on it: no broker, no messages.

Reads what to measure from standard input (see `floors.measure_raw_parsl`) and writes a JSON list of figures. Here a
burst's clock starts with the first submission, as submitting is the endpoint's work where there is one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from statistics import median
from typing import Any

from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from bench.figures import percentile
from bench.payload import give_back, nothing
from bench.processes import PeakMemory, Tree

TIMEOUT_S = 120.0
SETTLE_S = 2.0
TAIL_S = 0.7
UNCOUNTED = 3
MB = 1_000_000

Values = dict[str, float]


def make_executor(directory: Path, *, encrypted: bool) -> HighThroughputExecutor:
    """A running executor with one block of two workers on this machine."""
    executor = HighThroughputExecutor(
        label="bench",
        address="127.0.0.1",
        max_workers_per_node=2,
        encrypted=encrypted,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )
    executor.run_dir = executor.provider.script_dir = str(directory)
    executor.start()
    executor.scale_out_facade(1)
    return executor


def measure(executor: HighThroughputExecutor, tree: Tree, wanted: dict[str, Any]) -> list[Values]:
    """All figures that are wanted, in the order of the endpoint's cases."""

    def submit() -> Future[Any]:
        future: Future[Any] = executor.submit(nothing, {})
        return future

    def ask() -> float:
        began = time.monotonic()
        submit().result(TIMEOUT_S)
        return 1000 * (time.monotonic() - began)

    found: list[Values] = []
    for _ in range(UNCOUNTED):
        ask()
    if wanted["idle"]:
        time.sleep(SETTLE_S)
        found.append({"idle_pss": tree.pss_mib(), "idle_threads": tree.threads(), "idle_processes": len(tree.pids())})
    if wanted["latency"]:
        asked = [ask() for _ in range(wanted["latency"])]
        found.append({"latency": median(asked), "latency_p95": percentile(asked, 0.95)})
    if wanted["burst"]:
        rate_of(submit, 50)
        found += [no_ops(submit, tree, wanted["burst"]) for _ in range(wanted["bursts"])]
    if wanted["big"]:
        found.append(big(executor, tree, wanted["big"]))
    return found


def no_ops(submit: Callable[[], Future[Any]], tree: Tree, count: int) -> Values:
    time.sleep(TAIL_S)
    before = tree.cpu_seconds()
    rate = rate_of(submit, count)
    time.sleep(TAIL_S)
    return {"rate": rate, "cpu_per_task": 1000 * (tree.cpu_seconds() - before) / count}


def big(executor: HighThroughputExecutor, tree: Tree, count: int) -> Values:
    data = os.urandom(MB)

    def submit() -> Future[Any]:
        future: Future[Any] = executor.submit(give_back, {}, data)
        return future

    rate = rate_of(submit, count)
    with PeakMemory(tree) as peak:
        rate_of(submit, count)
    return {"big_rate": rate, "big_peak": peak.mib}


def rate_of(submit: Callable[[], Future[Any]], count: int) -> float:
    """Results a second, from the first submission to the last result."""
    began = time.monotonic()
    futures = [submit() for _ in range(count)]
    done, late = wait(futures, TIMEOUT_S)
    seconds = time.monotonic() - began
    if late or any(future.exception() for future in done):
        raise RuntimeError(f"{len(late)} of {count} tasks have no result")
    return count / seconds


def main() -> None:
    wanted = json.load(sys.stdin)
    directory = Path.cwd()
    executor = make_executor(directory, encrypted=wanted["encrypted"])
    try:
        found = measure(executor, Tree(os.getpid(), directory), wanted)
    finally:
        executor.shutdown()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
