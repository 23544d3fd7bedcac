"""Our manager starts user endpoints of the official package, as a site's PATH may have it."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.errors import ExitStatus
from tests.support.managers import ManagerProcess, Wire, registering
from tests.support.user_endpoint import Queues

pytestmark = pytest.mark.compat


def where() -> int:
    import os

    return os.getpid()


class Scene:
    """A manager of ours that is connected, and the queues of one user endpoint."""

    def __init__(self, wire: Wire, queues: Queues, manager: ManagerProcess) -> None:
        self.wire = wire
        self.queues = queues
        self.manager = manager

    def start_user_endpoint(self, **creds: Any) -> None:
        amqp_creds = self.queues.registration() | creds
        self.wire.send(self.wire.start_command(self.queues.endpoint_id, amqp_creds=amqp_creds))


@pytest.fixture
def scene(broker: Any, peer_endpoint_python: Path, tmp_path: Path) -> Iterator[Scene]:
    template = "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\nheartbeat_period: 5\n"
    with (
        Wire(broker.amqp_url) as wire,
        Queues(broker.amqp_url) as queues,
        registering(wire) as service,
        ManagerProcess(tmp_path, service, template=template, programs=peer_endpoint_python.parent) as manager,
    ):
        yield Scene(wire, queues, manager)


def test_an_official_user_endpoint_runs_tasks_and_knows_its_manager(scene):
    scene.start_user_endpoint()

    state = scene.queues.next_heartbeat(60)
    pid = scene.queues.value_of(scene.queues.submit(where))

    assert state["posix_ppid"] == scene.manager.process.pid
    assert state["posix_pid"] == pid
    assert Path(f"/proc/{pid}/cmdline").read_bytes().count(b"globus-compute-endpoint") >= 1


def test_an_official_user_endpoint_that_stopped_itself_is_started_again_for_the_request_that_came_just_before(scene):
    scene.start_user_endpoint()
    first = scene.queues.value_of(scene.queues.submit(where), 60)
    scene.start_user_endpoint()
    # Commands are followed in order: when this one is refused, the one before it was followed.
    other = str(uuid.uuid4())
    scene.wire.send(scene.wire.start_command(other) | {"command": "cmd_unknown"})
    assert "error" in scene.wire.state_of(other)

    stopping = psutil.Process(first)
    os.kill(first, signal.SIGTERM)
    stopping.wait(30)  # it answers tasks until it is gone
    second = scene.queues.value_of(scene.queues.submit(where), 60)

    assert second != first


def test_an_official_user_endpoint_ends_with_our_manager(scene):
    scene.start_user_endpoint()
    process = psutil.Process(scene.queues.value_of(scene.queues.submit(where), 60))

    scene.manager.process.send_signal(signal.SIGTERM)

    assert scene.manager.wait() == ExitStatus.OK
    assert not process.is_running()
    assert "SIGKILL" not in scene.manager.log
