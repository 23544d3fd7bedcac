"""One broker for all faults, and a run of one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.fault_broker import FaultBroker
from tests.support.fault_outcomes import BROKER_HEARTBEAT_S, After, outcome_after


@pytest.fixture(scope="session")
def fault_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultBroker]:
    with FaultBroker(tmp_path_factory.mktemp("fault-broker"), {"heartbeat": BROKER_HEARTBEAT_S}) as broker:
        yield broker


@pytest.fixture
def after(fault_broker: FaultBroker, tmp_path: Path) -> After:
    """What became of tasks in flight after a fault, by its name and an engine's.

    Whatever the fault is: each task is answered, none is run twice, and nothing of the endpoint is left running.
    """
    return lambda name, engine: outcome_after(name, engine, fault_broker, tmp_path)
