from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from official_peer import Peer


@pytest.fixture(scope="module")
def peer(peer_endpoint_python: Path) -> Iterator[Peer]:
    """One process with the official packages, for a whole module."""
    peer = Peer(str(peer_endpoint_python))
    yield peer
    peer.close()
