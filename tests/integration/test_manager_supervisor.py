"""The manager's table of user endpoints, with real processes and a real broker, and less patience than a manager's."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.config.model import load_manager_config
from endpoint.manager.children import State
from endpoint.manager.commands import Recipient, Requester, StartRequest
from endpoint.manager.local_user import LocalUser
from endpoint.manager.spawn import Host, Local
from endpoint.manager.supervisor import Supervisor
from endpoint.wire.queues import Registration
from tests.support.managers import TEMPLATE, Wire, stand_in_programs


@pytest.fixture
def wire(broker: Any) -> Iterator[Wire]:
    with Wire(broker.amqp_url) as wire:
        yield wire


@pytest.fixture
def host(tmp_path: Path) -> Host:
    directory = tmp_path / "compute" / "ep"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text("")
    (directory / "user_config_template.yaml.j2").write_text(TEMPLATE)
    environment = {"PATH": f"{stand_in_programs(tmp_path)}:/usr/bin:/bin", "HOME": str(tmp_path)}
    return Host(directory, load_manager_config(directory / "config.yaml"), environment)


@pytest.fixture
def request_for_one(wire: Wire) -> StartRequest:
    creds = wire.creds(str(uuid.uuid4()))
    recipient = Recipient(creds["endpoint_id"], Registration.parse(creds).heartbeat)
    return StartRequest("uep.one", Requester("me", "x", ()), recipient, creds)


async def until_it_runs(supervisor: Supervisor, name: str) -> None:
    while supervisor.children[name] is not State.RUNNING:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.02)


def test_a_user_endpoint_that_is_killed_after_its_start_is_reported(wire, host, request_for_one, tmp_path):
    async def history() -> dict[str, Any]:
        supervisor = Supervisor(Local(host), grace_s=0.1, starting_s=0.1)
        supervisor.request(request_for_one, LocalUser("me", os.getuid(), os.getgid(), tmp_path))
        seen = await asyncio.to_thread(wire.state_of, request_for_one.recipient.endpoint_id)
        await asyncio.wait_for(until_it_runs(supervisor, request_for_one.name), 20)
        psutil.Process(seen["pid"]).send_signal(signal.SIGKILL)
        await supervisor.gone()
        return wire.state_of(request_for_one.recipient.endpoint_id)

    state = asyncio.run(history())

    assert "signal 9 (SIGKILL)" in state["error"]
    assert "USER_ENDPOINT_ENDED" in state["error"]
