"""What several integration tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import RunningBroker
from tests.support.hub_peers import Place


@pytest.fixture
def place(broker: RunningBroker, tmp_path: Path) -> Iterator[Place]:
    """A virtual host and a database for a hub of the test's own."""
    place = Place(broker, tmp_path)
    yield place
    asyncio.run(place.remove())
