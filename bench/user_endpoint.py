"""One user endpoint over raw AMQP: ours and the official one, interleaved in one run, as ratios.

    make bench                                      all cases, both endpoints
    python -m bench.user_endpoint --amqp-url URL --official .venvs/peer-endpoint/bin/globus-compute-endpoint

Each round starts a fresh process of each endpoint in turn, so that a machine that drifts drifts for both. The client
side is the same code for both: it publishes tasks to the endpoint's queue and reads the result queue.

  start        seconds from spawning the process to its first heartbeat
  first        seconds from spawning the process to the first result of a task that was waiting
  latency      milliseconds for one no-op at a time, back to back (median of --latency-tasks)
  throughput   no-ops a second, --burst tasks published before the clock starts with the first result awaited
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.brokers import ThreadedBroker
from tests.support.user_endpoint import BIN, Queues, UserEndpointProcess

ENGINES = {
    "thread": "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n",
    "process": "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n",
    "htex": (
        "engine:\n  type: GlobusComputeEngine\n  max_workers_per_node: 2\n  address: 127.0.0.1\n"
        "  provider:\n    type: LocalProvider\n    init_blocks: 1\n    min_blocks: 1\n    max_blocks: 1\n"
    ),
}
CASES = ("start", "first", "latency", "throughput")
SMALLER_IS_BETTER = {"start": True, "first": True, "latency": True, "throughput": False}
UNITS = {"start": "s", "first": "s", "latency": "ms", "throughput": "tasks/s"}

Rows = dict[tuple[str, str, str], list[float]]


def nothing():
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amqp-url", help="an administrator's URL of a RabbitMQ; default: a private node for this run")
    parser.add_argument("--official", default=".venvs/peer-endpoint/bin/globus-compute-endpoint")
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency-tasks", type=int, default=30)
    parser.add_argument("--burst", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print the raw rows as JSON lines as well")
    arguments = parser.parse_args()
    commands = {"ours": str(BIN / "globus-compute-endpoint"), "official": arguments.official}
    rows: Rows = defaultdict(list)
    with broker_url(arguments.amqp_url) as url:
        for number in range(arguments.rounds):
            for engine in arguments.engine or list(ENGINES):
                for name, command in commands.items():
                    say(f"round {number + 1} of {arguments.rounds}: {engine}, {name}")
                    measure(rows, url, engine, name, command, arguments)
    if arguments.json:
        for (engine, case, name), values in rows.items():
            print(json.dumps({"engine": engine, "case": case, "endpoint": name, "values": values}))
    print_table(rows, arguments.engine or list(ENGINES))
    return 0


def measure(rows: Rows, url: str, engine: str, name: str, command: str, arguments: argparse.Namespace) -> None:
    """One fresh endpoint through all cases."""
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    config = ENGINES[engine] + "heartbeat_period: 30\n"
    try:
        with Queues(url) as queues:
            waiting = queues.submit(nothing)
            spawned = time.monotonic()
            with UserEndpointProcess(queues, directory, config=config, command=[command]):
                queues.next_heartbeat(60)
                rows[engine, "start", name].append(time.monotonic() - spawned)
                queues.result_of(waiting, 60)
                rows[engine, "first", name].append(time.monotonic() - spawned)
                rows[engine, "latency", name].append(1000 * latency(queues, arguments.latency_tasks))
                rows[engine, "throughput", name].append(throughput(queues, arguments.burst))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def latency(queues: Queues, count: int) -> float:
    """The median of seconds from publishing a task to reading its result."""
    seconds = []
    for _ in range(count):
        before = time.monotonic()
        queues.result_of(queues.submit(nothing))
        seconds.append(time.monotonic() - before)
    return statistics.median(seconds)


def throughput(queues: Queues, count: int) -> float:
    """Tasks a second, from the first publish to the last result."""
    before = time.monotonic()
    tasks = [queues.submit(nothing) for _ in range(count)]
    for task_id in tasks:
        queues.result_of(task_id, 120)
    return count / (time.monotonic() - before)


def print_table(rows: Rows, engines: list[str]) -> None:
    print("| engine | case | ours | official | ours is better by |")
    print("|---|---|---|---|---|")
    for engine in engines:
        for case in CASES:
            ours, official = (statistics.median(rows[engine, case, name]) for name in ("ours", "official"))
            factor = official / ours if SMALLER_IS_BETTER[case] else ours / official
            print(f"| {engine} | {case} | {ours:.4g} {UNITS[case]} | {official:.4g} {UNITS[case]} | {factor:.2f} x |")


@contextlib.contextmanager
def broker_url(given: str | None) -> Iterator[str]:
    """The URL given, or that of a private node that lives as long as the run."""
    if given:
        yield given
        return
    directory = Path(tempfile.mkdtemp(prefix="bench-broker-"))
    broker = ThreadedBroker(directory)
    try:
        yield broker.start().amqp_url
    finally:
        broker.stop()
        shutil.rmtree(directory, ignore_errors=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
