"""What several integration tests share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import RunningBroker
from tests.support.hub_peers import Place
from tests.support.slurm import Slurm, slurm_cluster

LONG_FIRST = ("test_slurm_faults", "test_slurm", "test_container", "test_user_endpoint", "test_doctor")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that the workers are done at the same time."""
    items.sort(
        key=lambda item: min((n for n, name in enumerate(LONG_FIRST) if item.path.name.startswith(name)), default=99)
    )


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Programs that run in the test's own process set it, and other tests make files that other users read."""
    mask = os.umask(0o022)
    yield
    os.umask(mask)


@pytest.fixture
def place(broker: RunningBroker, tmp_path: Path) -> Iterator[Place]:
    """A virtual host and a database for a hub of the test's own."""
    place = Place(broker, tmp_path)
    yield place
    asyncio.run(place.remove())


@pytest.fixture(scope="session")
def slurm_machine() -> Iterator[Slurm]:
    """One Slurm with three nodes for the whole run, and two users of it."""
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_machine: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """That Slurm, free, for this process and those that it starts. Fails where the test leaves a job."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_machine.configuration))
    yield slurm_machine
    left = slurm_machine.clear()
    assert not left, f"left with the batch system: {left}"
