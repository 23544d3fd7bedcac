"""The web service's side of a multi-user endpoint over raw AMQP: registrations, start commands, heartbeats.

One connection, one consumer and one clock for all endpoints of a run, whoever's they are.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from typing import Any

import pika

from bench.client import Silence
from endpoint.wire.codec import decode
from endpoint.wire.messages import StatusReport

RUNTIME = {
    "globus_compute_sdk_version": "4.19.0",
    "python": {"version": "3.11.2", "version_tuple": [3, 11, 2]},
}


class Refused(Exception):
    """An endpoint told why there is no user endpoint."""


class Post:
    """A context manager; its queues are gone afterwards. client_url: as `sides.client_url` makes it of `url`."""

    def __init__(self, url: str, client_url: str) -> None:
        self._url = url
        self._client_url = client_url
        self._exchange = f"multi-user.{uuid.uuid4()}"
        self._beats = f"beats.{uuid.uuid4()}"
        self._queues: list[str] = []
        self._arrived: dict[str, float] = {}
        self._refused: dict[str, str] = {}

    def __enter__(self) -> Post:
        self._connection = pika.BlockingConnection(pika.URLParameters(self._client_url))
        self._channel = self._connection.channel()
        self._channel.exchange_declare(self._exchange, "direct")
        self._declare(self._beats)
        self._channel.basic_consume(self._beats, self._note, auto_ack=True)
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._queues:
            self._channel.queue_delete(name)
        self._channel.exchange_delete(self._exchange)
        self._connection.close()

    def manager(self) -> dict[str, Any]:
        """A registration answer for a manager, whose queues are there."""
        endpoint_id, told = self._endpoint()
        commands = {"connection_url": self._url, "queue": self._declare(f"commands.{endpoint_id}")}
        return {**told, "command_queue_info": commands}

    def user_endpoint(self) -> dict[str, Any]:
        """A registration answer for a user endpoint, whose queues are there."""
        endpoint_id, told = self._endpoint()
        tasks, results = (self._declare(f"{kind}.{endpoint_id}") for kind in ("tasks", "results"))
        return {**told, "task_queue_info": self._info(tasks), "result_queue_info": self._info(results)}

    def start_command(self, creds: dict[str, Any], manager_id: str, identity: str) -> bytes:
        """What starts a user endpoint for somebody."""
        name = f"{identity}@example.org"
        who = {"sub": identity, "id": identity, "username": name, "name": "Somebody", "status": "used"}
        command = {
            "command": "cmd_start_endpoint",
            "args": [],
            "kwargs": {
                "name": f"uep.{manager_id}.{creds['endpoint_id']}",
                "user_opts": {},
                "user_runtime": RUNTIME,
                "amqp_creds": creds,
            },
            "globus_username": name,
            "globus_effective_identity": identity,
            "globus_identity_set": [who],
        }
        return json.dumps(command).encode()

    def send(self, commands: str, bodies: Iterable[bytes]) -> float:
        """Publish start commands in one go; returns the monotonic time just before the first."""
        properties = pika.BasicProperties(content_type="application/json", timestamp=round(time.time()))
        began = time.monotonic()
        for body in bodies:
            self._channel.basic_publish("", commands, body, properties)
        return began

    def wait_for(self, endpoint_ids: Iterable[str], timeout: float) -> float:
        """The monotonic time at which the last of these had sent its first heartbeat. Raises Silence and Refused."""
        wanted, deadline = set(endpoint_ids), time.monotonic() + timeout
        while missing := wanted - self._arrived.keys():
            if refused := [self._refused[one] for one in missing & self._refused.keys()]:
                raise Refused(refused[0])
            left = deadline - time.monotonic()
            if left <= 0:
                raise Silence(f"no heartbeat of {len(missing)} of {len(wanted)} endpoints within {timeout:.0f} s")
            self._connection.process_data_events(time_limit=left)
        return max(self._arrived[one] for one in wanted)

    def _endpoint(self) -> tuple[str, dict[str, Any]]:
        """A new endpoint's id, and what all registration answers have."""
        endpoint_id = str(uuid.uuid4())
        self._channel.queue_bind(self._beats, self._exchange, f"beat.{endpoint_id}")
        return endpoint_id, {
            "endpoint_id": endpoint_id,
            "heartbeat_queue_info": self._info(self._beats, f"beat.{endpoint_id}"),
        }

    def _info(self, queue: str, key: str = "") -> dict[str, Any]:
        target = {
            "exchange": self._exchange,
            "routing_key": key or queue,
            "mandatory": True,
            "properties": {"delivery_mode": 2},
        }
        place = {"connection_url": self._url, "exchange": self._exchange, "queue": queue}
        return {**place, "queue_publish_kwargs": target}

    def _declare(self, name: str) -> str:
        self._channel.queue_declare(name)
        self._channel.queue_bind(name, self._exchange, name)
        self._queues.append(name)
        return name

    def _note(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        came = time.monotonic()
        endpoint_id = method.routing_key.removeprefix("beat.")
        report = decode(body)
        error = report.global_state.get("error") if isinstance(report, StatusReport) else "not a status report"
        if error:
            self._refused[endpoint_id] = str(error)
        else:
            self._arrived.setdefault(endpoint_id, came)
