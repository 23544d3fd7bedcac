"""A user endpoint under faults, with tasks in flight: what becomes of every task, ours beside the official endpoint.

    make bench-faults
    python -m bench.faults --fault kill-endpoint --engine thread --tasks 40 --endpoint ours

Exit status 1: our endpoint lost a task, ran one twice, or answered one wrongly. 2: this machine can't run a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from bench import fault_report
from bench.fault_broker import FaultBroker
from bench.fault_cases import SILENCE_S, all_faults, faults_of
from bench.fault_count import Outcome, anonymous, count
from bench.fault_places import PlaceMissing
from bench.fault_run import ENGINES, Fault, run_fault
from tests.support.user_endpoint import BIN

OFFICIAL = Path(".venvs/peer-endpoint/bin/globus-compute-endpoint")
RESULTS = Path("bench/results")


class Brokers:
    """The run's brokers: one for most faults, one for each set of options that a fault wants. A context manager."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._kept: FaultBroker | None = None

    def __enter__(self) -> Brokers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def one(self, options: Mapping[str, int]) -> Iterator[FaultBroker]:
        """A broker with these options, to be used for one run."""
        if options:
            with _private_broker(options) as broker:
                yield broker
            return
        if self._kept is None:
            self._kept = self._stack.enter_context(_private_broker({}))
        try:
            yield self._kept
        except BaseException:  # who knows in what state it is
            self._kept = None
            self._stack.close()
            raise


@contextlib.contextmanager
def _private_broker(options: Mapping[str, int]) -> Iterator[FaultBroker]:
    with (
        tempfile.TemporaryDirectory(prefix="fault-broker-", ignore_cleanup_errors=True) as directory,
        FaultBroker(Path(directory), options) as broker,
    ):
        yield broker


def main() -> int:
    arguments = _arguments()
    programs = {"ours": BIN / "globus-compute-endpoint", "official": arguments.official.absolute()}
    names = ["ours", "official"] if arguments.endpoint == "both" else [arguments.endpoint]
    signal.signal(signal.SIGTERM, _interrupt)
    outcomes: list[Outcome] = []
    try:
        faults = faults_of(arguments.fault, arguments.silence)
        if missing := [str(programs[name]) for name in names if not programs[name].exists()]:
            raise PlaceMissing(f"{missing[0]} is missing: `make peers` installs the official endpoint")
        with Brokers() as brokers:
            for _ in range(arguments.rounds):
                for fault in faults:
                    for engine in [name for name in fault.engines if name in (arguments.engine or ENGINES)]:
                        for name in names:
                            outcomes.append(measure(fault, engine, name, programs[name], brokers, arguments.tasks))
    except PlaceMissing as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; all that was started is ended", file=sys.stderr)
        return 130
    finally:
        if outcomes:
            print(f"{fault_report.table(outcomes)}\n\n{fault_report.errors(outcomes)}")
            fault_report.write(outcomes, arguments.out)
    return 0 if all(one.good for one in outcomes if one.endpoint == "ours") else 1


def measure(fault: Fault, engine: str, name: str, program: Path, brokers: Brokers, tasks: int) -> Outcome:
    """One endpoint through one fault; a run that fails is an outcome, too."""
    outcome = Outcome(fault.name, engine, name, tasks, fault.seconds, may_run_twice=fault.may_run_twice)
    try:
        with brokers.one(fault.broker) as broker, run_fault(fault, engine, program, broker, tasks) as run:
            count(run, outcome)
    except PlaceMissing:
        raise
    except Exception as error:  # one run that fails must not cost the others
        outcome.failure = anonymous(f"{type(error).__name__}: {error}".split("\n", 1)[0])
        traceback.print_exc()
    print(_line(outcome), file=sys.stderr, flush=True)
    return outcome


def _line(one: Outcome) -> str:
    words = f"{one.answered} of {one.tasks} answered, {one.errors_told + one.expected_errors} errors, {one.lost} lost, "
    words += f"{one.run_twice} run twice, last answer after {one.last_answer_s} s"
    return f"{one.fault}, {one.engine}, {one.endpoint}: {one.failure or words}"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", action="append", choices=list(all_faults()), help="repeatable; default: all")
    parser.add_argument("--engine", action="append", choices=list(ENGINES), help="repeatable; default: all")
    parser.add_argument("--tasks", type=int, default=200, help="tasks in flight (default: %(default)s)")
    parser.add_argument("--endpoint", choices=["ours", "official", "both"], default="both")
    parser.add_argument("--official", type=Path, default=OFFICIAL, help="the official program (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of it (default: %(default)s)")
    parser.add_argument("--silence", type=float, default=SILENCE_S, help="seconds of a dead network (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the report (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
