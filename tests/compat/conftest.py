from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from official_peer import Peer


@pytest.fixture(scope="session")
def peer_endpoint_python() -> str:
    """The Python of an environment that holds the official endpoint and SDK."""
    python = os.environ.get("PEER_ENDPOINT_PYTHON", "")
    if not python:
        pytest.fail("PEER_ENDPOINT_PYTHON must name the Python of an environment with the official endpoint")
    return python


@pytest.fixture(scope="module")
def peer(peer_endpoint_python: str) -> Iterator[Peer]:
    """One process with the official packages, for a whole module."""
    peer = Peer(peer_endpoint_python)
    yield peer
    peer.close()
