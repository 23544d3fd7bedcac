"""A short run of our endpoint under one fault, and what must be true of it whatever the fault was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.fault_broker import FaultBroker
from bench.fault_cases import all_faults
from bench.fault_count import Outcome, count
from bench.fault_run import log_of, run_fault
from tests.support.user_endpoint import BIN

TASKS = 60
BROKER_HEARTBEAT_S = 5  # a dead connection is found within two of them
SILENCE_S = 14.0

After = Callable[[str, str], Outcome]


def outcome_after(name: str, engine: str, broker: FaultBroker, directory: Path) -> Outcome:
    """What became of the tasks. broker: for faults that need none of their own, which would be made in `directory`."""
    if options := all_faults()[name].broker:
        with FaultBroker(directory / "broker", options) as own:
            return _checked_outcome(name, engine, own)
    return _checked_outcome(name, engine, broker)


def _checked_outcome(name: str, engine: str, broker: FaultBroker) -> Outcome:
    fault = all_faults(SILENCE_S)[name]
    with run_fault(fault, engine, BIN / "globus-compute-endpoint", broker, TASKS) as run:
        outcome = count(run, Outcome(name, engine, "ours", TASKS, fault.seconds))
        told = f"{outcome}\n{log_of(run)}"
    assert outcome.lost == 0, told
    assert outcome.run_twice == 0 or fault.may_run_twice, told
    assert outcome.wrong_values == outcome.doubles_different == outcome.unknown_answers == 0, told
    assert outcome.never_started == 0, told
    assert outcome.starts_refused == 0, told
    assert outcome.left_running == outcome.left_after_stop == 0, told
    return outcome
