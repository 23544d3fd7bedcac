"""What is done to one user endpoint, and what is measured of it. Both sides go through the same code."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.client import PATIENCE_S, Listener, Recipe, Silence, answered_by, ask, burst, publish
from bench.figures import Results, percentile
from bench.payload import give_back, nothing
from bench.processes import PeakMemory, Tree
from bench.sides import Endpoint, Side, say
from tests.support.user_endpoint import Queues

CASES = ("start", "latency", "throughput", "big", "idle", "several")
START_TIMEOUT_S = 90.0
SETTLE_S = 2.0  # after which nothing of a start or a load is going on any more
TAIL_S = 0.7  # a burst's last acknowledgements go out after its last result; the official publisher's period is 0.5 s
UNCOUNTED = 2  # tasks before the first that counts
LONGEST_PAUSE_S = 0.3
MB = 1_000_000

NOTHING = Recipe.of(nothing)


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    starts: of the thread engine, in a round. latency, paused, burst, big: counts of tasks. bursts: of no-ops, in a
    round. several: user endpoints at once.
    idle_s: seconds. plain_floor: whether raw Parsl is measured without encryption too.
    """

    rounds: int = 3
    starts: int = 3
    latency: int = 30
    paused: int = 20
    burst: int = 2000
    bursts: int = 2
    big: int = 200
    several: int = 8
    idle_s: float = 60.0
    plain_floor: bool = True
    cases: tuple[str, ...] = CASES
    engines: tuple[str, ...] = ("thread", "process", "parsl")


QUICK = Settings(rounds=1, latency=5, paused=3, burst=500, bursts=2, big=20, several=4, idle_s=10.0, plain_floor=False)


def measure(results: Results, url: str, side: Side, engine: str, settings: Settings, round_number: int) -> None:
    """One fresh user endpoint through all cases but those for several endpoints."""
    with Endpoint(url, side, engine) as endpoint:

        def add(values: dict[str, float]) -> None:
            results.add(engine, side.name, round_number, values)

        def lose(count: int) -> None:
            results.lose(side.name, count)

        add(started(endpoint))
        if "idle" in settings.cases:
            add(resting(endpoint.tree))
        if "latency" in settings.cases:
            add(latencies(endpoint.queues, settings.latency, settings.paused))
        if "throughput" in settings.cases:
            for values in throughput(endpoint.queues, endpoint.tree, settings, lose):
                add(values)
        if "big" in settings.cases:
            add(big(endpoint.queues, endpoint.tree, settings.big, lose))
        if "start" in settings.cases:
            add(stopped(endpoint))
    if "start" in settings.cases and engine == "thread":
        start_again(results, url, side, settings.starts - 1, round_number)


def start_again(results: Results, url: str, side: Side, count: int, round_number: int) -> None:
    """More starts of the engine that starts fastest, as a fraction of a second says little when it is taken once."""
    for _ in range(count):
        with Endpoint(url, side, "thread") as endpoint:
            results.add("thread", side.name, round_number, started(endpoint))


def started(endpoint: Endpoint) -> dict[str, float]:
    """Spawn it with a task in its queue; seconds to the first heartbeat and to the first result."""
    queues = endpoint.queues
    task_id = publish(queues, NOTHING)
    with Listener(queues, [queues.heartbeat, queues.result]) as listener:
        spawned = endpoint.spawn()
        heartbeat, _ = listener.next(queues.heartbeat, START_TIMEOUT_S)
        result, body = listener.next(queues.result, START_TIMEOUT_S)
    if answered_by(body) != task_id:
        raise Silence("an error came instead of the first result")
    return {"heartbeat": heartbeat - spawned, "first_result": result - spawned}


def resting(tree: Tree) -> dict[str, float]:
    """What it occupies after its first task, before any load."""
    time.sleep(SETTLE_S)
    return {"idle_pss": tree.pss_mib(), "idle_threads": tree.threads(), "idle_processes": len(tree.pids())}


def latencies(queues: Queues, count: int, paused: int) -> dict[str, float]:
    """Milliseconds of one no-op at a time: back to back, then with random pauses (the same ones in every run)."""
    pauses = random.Random(1)
    with Listener(queues, [queues.result]) as listener:
        for _ in range(UNCOUNTED):
            ask(queues, listener, NOTHING)
        back_to_back = [1000 * ask(queues, listener, NOTHING) for _ in range(count)]
        after_pauses = []
        for _ in range(paused):
            time.sleep(pauses.uniform(0.005, LONGEST_PAUSE_S))
            after_pauses.append(1000 * ask(queues, listener, NOTHING))
    values = {"latency": median(back_to_back), "latency_p95": percentile(back_to_back, 0.95)}
    if after_pauses:
        values |= {"paused": median(after_pauses), "paused_p95": percentile(after_pauses, 0.95)}
    return values


def throughput(
    queues: Queues, tree: Tree, settings: Settings, lose: Callable[[int], None]
) -> Sequence[dict[str, float]]:
    """Results a second of bursts of no-ops, and milliseconds of processor time for each task."""
    burst(queues, tree, NOTHING, 50)
    found = []
    for _ in range(settings.bursts):
        time.sleep(TAIL_S)
        before = tree.cpu_seconds()
        done = burst(queues, tree, NOTHING, settings.burst)
        time.sleep(TAIL_S)
        cpu_ms = 1000 * (tree.cpu_seconds() - before)
        lose(done.lost)
        found.append({"rate": done.rate, "cpu_per_task": cpu_ms / settings.burst})
    return found


def big(queues: Queues, tree: Tree, count: int, lose: Callable[[int], None]) -> dict[str, float]:
    """Results a second of tasks that get and give 1 MB of random bytes; then MiB at most in a second such burst.

    The memory is sampled in a burst of its own, as reading it takes the longer the more there is.
    """
    recipe = Recipe.of(give_back, os.urandom(MB))
    timed = burst(queues, tree, recipe, count)
    with PeakMemory(tree) as peak:
        sampled = burst(queues, tree, recipe, count)
    lose(timed.lost + sampled.lost)
    return {"big_rate": timed.rate, "big_peak": peak.mib}


def stopped(endpoint: Endpoint) -> dict[str, float]:
    """Seconds from SIGTERM to the end of the process, when nothing is going on."""
    time.sleep(SETTLE_S)
    seconds = endpoint.terminate()
    if seconds is None:
        raise Silence("the process did not end after SIGTERM")
    return {"exit": seconds}


def warm_up(results: Results, url: str, sides: Sequence[Side], settings: Settings) -> None:
    """Run everything once, all at the same time, so that modules are compiled and files are in memory.

    As all of them are there, this is also where the processor time of an idle minute is taken: none of them
    takes it from another.
    """
    with contextlib.ExitStack() as stack:
        endpoints = [stack.enter_context(Endpoint(url, side, engine)) for engine in settings.engines for side in sides]
        _start_all(endpoints, wait_for_result=True)
        if "idle" in settings.cases:
            say(f"idle for {settings.idle_s:.0f} s: all at once")
            time.sleep(2 * SETTLE_S)
            before = [endpoint.tree.cpu_seconds() for endpoint in endpoints]
            began = time.monotonic()
            time.sleep(settings.idle_s)
            minutes = (time.monotonic() - began) / 60
            for endpoint, cpu in zip(endpoints, before, strict=True):
                spent = endpoint.tree.cpu_seconds() - cpu
                results.add(endpoint.engine, endpoint.side.name, 0, {"idle_cpu": spent / minutes})
        _stop_all(endpoints)


def several(results: Results, url: str, side: Side, count: int, round_number: int) -> None:
    """So many user endpoints with threads, started at once: seconds to the last first heartbeat, and MiB in sum."""
    with contextlib.ExitStack() as stack:
        endpoints = [stack.enter_context(Endpoint(url, side, "thread")) for _ in range(count)]
        seconds = _start_all(endpoints)
        time.sleep(SETTLE_S)
        memory = sum(endpoint.tree.pss_mib() for endpoint in endpoints)
        _stop_all(endpoints)
    results.add("thread", side.name, round_number, {"several_heartbeats": seconds, "several_pss": memory})


def _start_all(endpoints: Sequence[Endpoint], *, wait_for_result: bool = False) -> float:
    """Spawn all; seconds until each has sent a heartbeat (and answered a task, if that is asked for)."""
    names = [endpoint.queues.heartbeat for endpoint in endpoints]
    if wait_for_result:
        names += [endpoint.queues.result for endpoint in endpoints]
        for endpoint in endpoints:
            publish(endpoint.queues, NOTHING)
    with Listener(endpoints[0].queues, names) as listener:
        began = time.monotonic()
        for endpoint in endpoints:
            endpoint.spawn()
        return max(listener.next(name, START_TIMEOUT_S + PATIENCE_S)[0] for name in names) - began


def _stop_all(endpoints: Sequence[Endpoint]) -> None:
    """Tell all to end before the end of any is waited for, or their ends would add up."""
    for endpoint in endpoints:
        endpoint.ask_to_end()
