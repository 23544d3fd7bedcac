"""One user endpoint: ours and the official one in turn, in one run over one private broker, beside two floors.

    make bench                              everything; twenty minutes on two cores
    python -m bench.run --quick             the form for CI: fewer tasks, one round, under four minutes
    python -m bench.run --engine thread --case latency --case throughput --rounds 1

Each round starts a fresh process of each endpoint for each engine, in the opposite order of the round before, so that
a machine that drifts drifts for both. The same client publishes the tasks and gets the results for both.

cases:
  start        spawn to first heartbeat and to first result (a task waits in the queue); SIGTERM to exit when idle
  latency      one no-op after another, back to back and after random pauses: median and 95th percentile
  throughput   no-ops, published while the endpoint is frozen: the clock starts when it is let go, and ends with the
               last result in the result queue; and the processor time of each task
  big          tasks that get and give 1 MB: rate, and peak memory of all processes
  idle         memory, threads and processes after the first task; processor time of an idle minute
  several      user endpoints with threads at once (8; 4 with --quick): time to the last first heartbeat, memory in sum

floors (they go through the cases that make sense for them):
  echo         a process that sends each message back through the same broker
  raw Parsl    its executor used directly with the parsl engine's options, encrypted (and not, except with --quick); its
               clock starts with the first submission

The table goes to standard output. A full run writes performance.json, performance.md and performance.png into
bench/results; a quick or partial one writes them where --json-out says. The chart needs an environment with matplotlib.

exit status: 0; 1 when a task of ours has no result, when ours could not be measured, or when a figure is far off its
goal: below half of an "at least" goal, or more than half above an "at most" goal.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bench import cases, floors, tables
from bench.cases import CASES, QUICK, Settings
from bench.facts import facts_of_run
from bench.figures import ECHO, OURS, RAW_PARSL, RAW_PARSL_PLAIN, Failure, Results
from bench.goals import outcomes, problems
from bench.sides import ENGINES, OFFICIAL_BIN, OURS_BIN, REPOSITORY, Side, both_sides, compiled_modules, say
from tests.support.brokers import ThreadedBroker

RESULTS = REPOSITORY / "bench" / "results"
CHART_PYTHON = REPOSITORY / ".venvs" / "bench" / "bin" / "python"
NAME = "performance"


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    settings = settings_of(given)
    sides = both_sides(given.ours, given.official)
    for side in sides:
        if not side.program.exists():
            say(f"{side.program} is missing; `make bench` sets up both endpoints")
            return 1
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        results = run(sides, settings)
    except KeyboardInterrupt:
        say("Interrupted; nothing is left running")
        return 130
    report = tables.markdown(results)
    print(report)
    whole = settings.cases == CASES and settings.engines == tuple(ENGINES) and not given.quick
    if folder := given.json_out or (RESULTS if whole else None):
        write(results, report, folder, chart=given.chart)
    found = problems(results, outcomes(results))
    for sentence in found:
        say(f"FAILED: {sentence}")
    return 1 if found else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=_positive, help=f"default {Settings.rounds}; {QUICK.rounds} with --quick")
    made.add_argument("--engine", action="append", choices=list(ENGINES), help="more than once for more; default all")
    made.add_argument("--case", action="append", choices=CASES, help="more than once for more; default all")
    made.add_argument("--quick", action="store_true", help="fewer tasks and rounds")
    made.add_argument("--burst", type=_positive, help=f"no-ops of a burst; default {Settings.burst}")
    made.add_argument("--idle-seconds", type=float, help=f"default {Settings.idle_s:g}; {QUICK.idle_s:g} with --quick")
    made.add_argument("--json-out", type=Path, metavar="DIR", help="where to write the results")
    made.add_argument("--chart", action="store_true", help="fail where the chart can't be drawn; default: leave it out")
    made.add_argument("--ours", type=Path, default=OURS_BIN, metavar="DIR", help="our endpoint's programs")
    made.add_argument(
        "--official", type=Path, default=OFFICIAL_BIN, metavar="DIR", help="the official endpoint's programs"
    )
    return made


def settings_of(given: argparse.Namespace) -> Settings:
    """The settings of a full or a quick run, with what the command line says."""
    changes = {"rounds": given.rounds, "burst": given.burst, "idle_s": given.idle_seconds}
    chosen = replace(QUICK if given.quick else Settings(), **{k: v for k, v in changes.items() if v is not None})
    return replace(
        chosen,
        cases=tuple(case for case in CASES if case in (given.case or CASES)),
        engines=tuple(engine for engine in ENGINES if engine in (given.engine or ENGINES)),
    )


def run(sides: Sequence[Side], settings: Settings) -> Results:
    """Measure everything; all processes and directories are gone afterwards, also after an exception."""
    results = Results(settings=asdict(settings))
    with compiled_modules(), private_broker() as url:
        results.facts = facts_of_run(url, sides[-1])
        say("warming up: everything once")
        cases.warm_up(results, url, sides, settings)
        for number in range(1, settings.rounds + 1):
            _round(results, url, sides if number % 2 else sides[::-1], settings, number)
    return results


def _round(results: Results, url: str, sides: Sequence[Side], settings: Settings, number: int) -> None:
    """One value or more of everything, except what is measured once a run."""
    say(f"round {number} of {settings.rounds}")
    if set(settings.cases) != {"several"}:
        for engine in settings.engines:
            for side in sides:
                with _attempt(results, side.name, engine):
                    cases.measure(results, url, side, engine, settings, number)
    if {"latency", "throughput", "big"} & set(settings.cases):
        with _attempt(results, ECHO):
            floors.measure_echo(results, url, settings, number)
        if "parsl" in settings.engines:
            python = next(side.python for side in sides if side.name == OURS)
            for name in (RAW_PARSL, RAW_PARSL_PLAIN) if settings.plain_floor else (RAW_PARSL,):
                with _attempt(results, name):
                    floors.measure_raw_parsl(results, settings, number, name, python)
    if "several" in settings.cases and "thread" in settings.engines:
        for side in sides:
            with _attempt(results, side.name, f"{settings.several} at once"):
                cases.several(results, url, side, settings.several, number)


@contextlib.contextmanager
def _attempt(results: Results, side: str, what: str = "") -> Iterator[None]:
    """Keep a failure as a result: the other measurements still count."""
    say(f"  {side} {what}".rstrip())
    try:
        yield
    except Exception as error:
        failed = Failure(side, what, f"{type(error).__name__}: {error}")
        results.failed.append(failed)
        say(str(failed))


def write(results: Results, report: str, folder: Path, *, chart: bool) -> None:
    """Write the three files; the chart where its environment is there, or an error where `chart` insists on it."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{NAME}.json"
    results.save(data)
    (folder / f"{NAME}.md").write_text(report)
    if not CHART_PYTHON.exists() and not chart:
        say("No chart: requirements/bench.txt is not installed in .venvs/bench")
        return
    subprocess.run(
        [str(CHART_PYTHON), "-m", "bench.chart", str(data.resolve()), str((folder / f"{NAME}.png").resolve())],
        check=True,
        cwd=REPOSITORY,
    )


@contextlib.contextmanager
def private_broker() -> Iterator[str]:
    """The administrator's URL of a RabbitMQ node that lives as long as the block."""
    with tempfile.TemporaryDirectory(prefix="bench-broker-", ignore_cleanup_errors=True) as directory:
        broker = ThreadedBroker(Path(directory))
        url = broker.start().amqp_url
        try:
            yield url
        finally:
            broker.stop()


def _as_interrupt(_number: int, _frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: through every `finally`."""
    raise KeyboardInterrupt


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
