"""What several kinds of tests share: a broker, a hub, and the interpreters of the official packages.

These fixtures fail, and never skip, where something is missing: a test that didn't run has not passed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.brokers import RunningBroker, ThreadedBroker
from tests.support.hubs import HubProcess, RunningHub

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """One RabbitMQ node for the whole run; use queues, users or virtual hosts of your own in it."""
    threaded = ThreadedBroker(tmp_path_factory.mktemp("broker"))
    running = threaded.start()
    yield running
    threaded.stop()


@pytest.fixture(scope="session")
def hub(broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A `compute-hub serve` on a free port, in a virtual host of its own on the run's broker."""
    directory = tmp_path_factory.mktemp("hub")
    process = HubProcess([*broker.serve_arguments(directory, vhost="hub"), "--port", "0"], log=directory / "hub.stderr")
    yield RunningHub(url=process.url, directory=directory, process=process)
    status = process.stop()
    assert status == 0, f"compute-hub ended with status {status}:\n{process.log.read_text()}"


@pytest.fixture(scope="session")
def peer_endpoint_python() -> Path:
    """The interpreter of an environment with the official endpoint."""
    return _peer_python("PEER_ENDPOINT_PYTHON", "peer-endpoint")


@pytest.fixture(scope="session")
def peer_sdk_python() -> Path:
    """The interpreter of an environment with the official SDK, and nothing of ours."""
    return _peer_python("PEER_SDK_PYTHON", "peer-sdk")


@pytest.fixture(scope="session")
def peer_sdk_newer_python() -> Path:
    """The same with a newer Python than the one that the other environments have."""
    return _peer_python("PEER_SDK_NEWER_PYTHON", "peer-sdk-newer")


def _peer_python(variable: str, name: str) -> Path:
    path = Path(os.environ.get(variable) or REPOSITORY / ".venvs" / name / "bin" / "python")
    if not path.exists():
        pytest.fail(f"{path} is missing: install requirements/{name}.txt there, or name an interpreter in {variable}")
    return path


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fails when the test leaves a child process of this one behind."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    _, alive = psutil.wait_procs(left, timeout=3)
    assert not alive, f"left running: {alive}"
