"""User endpoints: which one a submission is for, and that it runs before tasks are sent to it."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from endpoint.amqp.publisher import Publisher, PublishRefused
from endpoint.errors import NetworkFailure
from endpoint.hub.auth import identity_document
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.models import Endpoint, Identity
from endpoint.hub.presence import Heartbeat, Presence
from endpoint.hub.refusals import FailureNotice, StartRefused, Unavailable
from endpoint.hub.rest import Caller
from endpoint.hub.settings import HubSettings

log = logging.getLogger(__name__)

_NAMESPACE = uuid.UUID("5b6f0f0a-5d0c-4a8e-9c39-0d4f6a1f0b57")


@dataclass(frozen=True)
class StartRequest:
    """What a submission says of the user endpoint that it wants."""

    manager: Endpoint
    caller: Caller
    user_options: Mapping[str, Any]
    user_runtime: Mapping[str, Any]

    @classmethod
    def kept(cls, row: Endpoint, manager: Endpoint, owner: Identity) -> StartRequest | None:
        """The request that made this `row`; None where not all of it was kept, as by versions before this one."""
        options, runtime = (row.details.get(name) for name in ("user_endpoint_config", "user_runtime"))
        if not isinstance(options, dict) or not isinstance(runtime, dict):
            return None
        request = cls(manager, Caller.of(owner), options, runtime)
        return request if request.endpoint_id == row.id else None

    @property
    def endpoint_id(self) -> str:
        """The same manager, user, options and runtime always mean the same user endpoint."""
        parts = [self.manager.id, self.caller.id, self.user_options, self.user_runtime]
        return str(uuid.uuid5(_NAMESPACE, json.dumps(parts, sort_keys=True, separators=(",", ":"))))

    @property
    def name(self) -> str:
        """What the manager calls it."""
        return f"uep.{self.manager.id}.{self.endpoint_id}"

    @property
    def details(self) -> dict[str, Any]:
        """What the database keeps of it."""
        return {"user_endpoint_config": dict(self.user_options), "user_runtime": dict(self.user_runtime)}

    def row(self) -> Endpoint:
        """The user endpoint as the database keeps it."""
        return Endpoint(
            id=self.endpoint_id,
            parent_id=self.manager.id,
            owner_id=self.caller.id,
            name=self.name,
            templated=False,
            high_assurance=self.manager.high_assurance,
            details=self.details,
            created=time.time(),
        )

    def command(self, credentials: Mapping[str, Any]) -> bytes:
        """The start command's body."""
        command = {
            "command": "cmd_start_endpoint",
            "args": [],
            "kwargs": {
                "name": self.name,
                "user_opts": self.user_options,
                "user_runtime": self.user_runtime,
                "amqp_creds": credentials,
            },
            "globus_username": self.caller.username,
            "globus_effective_identity": self.caller.id,
            "globus_identity_set": [identity_document(self.caller)],
        }
        return json.dumps(command).encode()


@dataclass(frozen=True)
class _Sent:
    """A start command that was sent: when (of the monotonic clock), and to whom."""

    at: float
    manager_id: str


@dataclass
class _Start:
    """A start whose first heartbeat is awaited; `failure` is the notice's text if that came instead."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str | None = None
    waiters: int = 0
    sent: asyncio.Task[None] | None = None


class Starts:
    """Starts user endpoints by command, and lets submissions wait for their first heartbeat."""

    def __init__(self, settings: HubSettings, broker: BrokerAdmin, presence: Presence, publisher: Publisher) -> None:
        self._settings = settings
        self._broker = broker
        self._presence = presence
        self._publisher = publisher
        self._running: dict[str, _Start] = {}
        self._sent: dict[str, _Sent] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        # Kept in memory only: passwords are not for the database. After a restart of the hub they are made anew.
        self._credentials: dict[str, dict[str, Any]] = {}

    async def ensure(self, request: StartRequest) -> None:
        """Return when the user endpoint runs; raises StartRefused with the reason if it does not start."""
        endpoint_id = request.endpoint_id
        if self._presence.is_online(endpoint_id):
            await self._refresh(request)
            return
        start = self._running.get(endpoint_id)
        if start is None:
            start = self._running[endpoint_id] = _Start()
            start.sent = self._shared(request)
        start.waiters += 1
        try:
            if start.sent is not None:
                await asyncio.shield(start.sent)  # shared: it goes on when the first who asked hangs up
            await self._first_heartbeat(request, start)
        finally:
            start.waiters -= 1
            if start.waiters == 0 and self._running.get(endpoint_id) is start:
                del self._running[endpoint_id]

    async def ask(self, request: StartRequest) -> None:
        """Send a start command, and wait for nothing but the broker; raises StartRefused or Unavailable."""
        await asyncio.shield(self._shared(request))

    def is_awaited(self, endpoint_id: str) -> bool:
        """Whether a submission waits for the user endpoint."""
        return endpoint_id in self._running

    def quiet_s(self, endpoint_id: str) -> float:
        """Seconds since its manager, which has not been started anew since, was asked for it; infinite for never."""
        sent = self._sent.get(endpoint_id)
        return math.inf if sent is None else time.monotonic() - sent.at

    def renewed(self, manager_id: str) -> None:
        """The manager was started anew: what another process of it was asked for does not count."""
        self._sent = {one: sent for one, sent in self._sent.items() if sent.manager_id != manager_id}

    def note(self, endpoint_id: str, beat: Heartbeat) -> None:
        """A heartbeat has come: it may be the one that a start waits for."""
        if beat.error is None and not beat.alive:
            return  # the last one of a process that goes; the one that was asked for is still to come
        if start := self._running.pop(endpoint_id, None):
            start.failure = beat.error
            start.ended.set()

    def forget(self, endpoint_id: str) -> None:
        """The endpoint is gone."""
        self._credentials.pop(endpoint_id, None)
        self._sent.pop(endpoint_id, None)

    async def _first_heartbeat(self, request: StartRequest, start: _Start) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.start_wait_s
        ended = asyncio.create_task(start.ended.wait())
        online = asyncio.create_task(
            self._presence.comes_online(request.manager.id, min(self._settings.offline_wait_s, deadline - loop.time()))
        )
        try:
            await asyncio.wait((ended, online), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done() and not online.result():
                raise self._offline(request.manager)
            await asyncio.wait((ended,), timeout=max(0.0, deadline - loop.time()))
        finally:
            ended.cancel()
            online.cancel()
        if not start.ended.is_set():
            raise self._too_slow(request)
        if start.failure is not None:
            raise FailureNotice(start.failure)

    async def _refresh(self, request: StartRequest) -> None:
        # It may be about to stop because it is idle: a manager that was asked lately starts it again.
        if self.quiet_s(request.endpoint_id) > self._settings.refresh_start_s:
            await self.ask(request)

    def _shared(self, request: StartRequest) -> asyncio.Task[None]:
        """One command for all who ask at the same time: two would give its user two passwords."""
        endpoint_id = request.endpoint_id
        if endpoint_id not in self._sending:
            task = asyncio.create_task(self._send(request), name=f"start {endpoint_id}")
            self._sending[endpoint_id] = task
            task.add_done_callback(lambda _: self._sending.pop(endpoint_id, None))
        return self._sending[endpoint_id]

    async def _send(self, request: StartRequest) -> None:
        endpoint_id = request.endpoint_id
        if endpoint_id not in self._credentials:
            queues = await self._broker.provision_endpoint(endpoint_id, with_commands=False)
            self._credentials[endpoint_id] = {
                "endpoint_id": endpoint_id,
                "task_queue_info": queues.task_queue_info,
                "result_queue_info": queues.result_queue_info,
                "heartbeat_queue_info": queues.heartbeat_queue_info,
            }
        self._sent[endpoint_id] = _Sent(time.monotonic(), request.manager.id)
        now = time.time()
        confirmed = self._publisher.publish(
            request.command(self._credentials[endpoint_id]),
            exchange="",
            routing_key=self._broker.command_queue(request.manager.id),
            properties={
                "content_type": "application/json",
                "timestamp": round(now),
                "expiration": str(self._settings.command_expiry_s * 1000),
                "delivery_mode": 2,
            },
        )
        try:
            await asyncio.wait_for(confirmed, self._settings.command_wait_s)
        except PublishRefused as error:
            raise self._offline(request.manager) from error
        except (asyncio.TimeoutError, NetworkFailure) as error:
            raise Unavailable("The message broker is away") from error
        log.info("Asked for user endpoint %s", request.name, extra={"endpoint": request.manager.id})

    def _offline(self, manager: Endpoint) -> StartRefused:
        last = self._presence.last(manager.id)
        if last is None:
            seen = "it has not been heard of yet"
        else:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(last.at))
            seen = f"it was last heard of at {stamp} UTC"
        name = manager.display_name or manager.name
        return StartRefused(f"Endpoint {manager.id} ({name}) is offline; {seen}")

    def _too_slow(self, request: StartRequest) -> StartRefused:
        waited = self._settings.start_wait_s
        return StartRefused(
            f"A user endpoint on endpoint {request.manager.id} did not report within {waited:g} s of being asked for",
            hint="It may still be starting: submit again in a while",
        )
