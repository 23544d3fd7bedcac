"""A hub in this process on a real broker, and small endpoints that speak the protocol with it.

Everything here lives on one asyncio loop; a test is a coroutine that `in_loop` runs.
"""

from __future__ import annotations

import asyncio
import functools
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from endpoint.amqp.consumer import Delivery
from endpoint.amqp.link import Link
from endpoint.amqp.publisher import Publisher
from endpoint.config.hub import load_hub_config
from endpoint.hub.app import create_app
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.clients import create_client
from endpoint.hub.service import Hub
from endpoint.hub.settings import HubSettings, settings_from
from endpoint.hub.tokens import COMPUTE_SCOPE
from endpoint.wire.codec import decode, encode
from endpoint.wire.messages import Result, StatusReport, Task
from endpoint.wire.queues import Registration
from tests.support.brokers import RunningBroker

ALL_SCOPES = f"{COMPUTE_SCOPE} openid email"
PATIENCE_S = 20.0


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test of a coroutine function; pytest still sees its fixtures."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))  # type: ignore[arg-type]

    return run


@dataclass
class Person:
    """A client identity that is logged in at a hub."""

    id: str
    secret: str
    http: httpx.AsyncClient
    tokens: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, body: Any = None, *, server: str = "funcx_service") -> httpx.Response:
        return await self.http.request(
            method, path, json=body, headers={"Authorization": f"Bearer {self.tokens[server]}"}
        )

    async def ok(self, method: str, path: str, body: Any = None, *, server: str = "funcx_service") -> Any:
        answer = await self.call(method, path, body, server=server)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, status: int, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self.call(method, path, body)
        assert answer.status_code == status, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def function(self, **changed: Any) -> str:
        body = {"function_name": "f", "function_code": "4\n00\nX", **changed}
        return str((await self.ok("POST", "/v3/functions", body))["function_uuid"])

    async def endpoint(self, **changed: Any) -> dict[str, Any]:
        document: dict[str, Any] = await self.ok("POST", "/v3/endpoints", {"endpoint_name": "ep", **changed})
        return document

    async def result(self, task_id: str) -> dict[str, Any]:
        """A task's document, which must be there already."""
        document: dict[str, Any] = await self.ok("GET", f"/v2/tasks/{task_id}")
        return document


@dataclass
class InProcessHub:
    """A hub whose application is called without a socket."""

    app: Starlette
    http: httpx.AsyncClient
    admin: BrokerAdmin
    settings: HubSettings

    @property
    def hub(self) -> Hub:
        hub: Hub = self.app.state.hub
        return hub

    async def person(self, name: str = "somebody") -> Person:
        client_id, secret = await create_client(self.hub.store, name)
        person = Person(client_id, secret, self.http)
        answer = await self.token(client_id, secret)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        for one in (document, *document["other_tokens"]):
            person.tokens[one["resource_server"]] = one["access_token"]
        return person

    async def token(self, client_id: str, secret: str, scope: str = ALL_SCOPES, **changed: str) -> httpx.Response:
        form = {"grant_type": "client_credentials", "scope": scope, **changed}
        return await self.http.post("/v2/oauth2/token", data=form, auth=(client_id, secret))


def hub_settings(database: Path, **changed: Any) -> HubSettings:
    """The settings that the schema's defaults make, with changes."""
    return replace(settings_from(load_hub_config(None), database), **changed)


class Place:
    """A virtual host on the broker and a directory: what stays when a hub is started again."""

    def __init__(self, broker: RunningBroker, directory: Path) -> None:
        self._broker = broker
        self._directory = directory
        self._vhost = f"hub-{uuid.uuid4()}"

    def admin(self) -> BrokerAdmin:
        broker = self._broker
        return BrokerAdmin(broker.management_url, broker.user, broker.password, broker.amqp_base, self._vhost)

    @asynccontextmanager
    async def hub(self, **settings: Any) -> AsyncIterator[InProcessHub]:
        quick = {"start_wait_s": PATIENCE_S, "offline_wait_s": PATIENCE_S}
        chosen, admin = hub_settings(self._directory / "hub.db", **(quick | settings)), self.admin()
        app = create_app(chosen, admin)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        try:
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://hub") as http,
            ):
                yield InProcessHub(app, http, admin, chosen)
        finally:
            await admin.close()

    async def remove(self) -> None:
        broker = self._broker
        async with httpx.AsyncClient(auth=(broker.user, broker.password)) as http:
            await http.delete(f"{broker.management_url}/api/vhosts/{self._vhost}")


class Peer:
    """One endpoint's connection: it counts what comes, and sends what a test wants."""

    def __init__(self, registration: dict[str, Any]) -> None:
        self.registration = Registration.parse(registration)
        self.id = self.registration.endpoint_id
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.cut = asyncio.Event()  # the connection was lost
        self.link = Link(
            f"peer {self.id}",
            self.registration.heartbeat.connection_url,
            on_state=lambda up, _reason: None if up else self.cut.set(),
            patience_s=5,
        )
        self.publisher: Publisher = self.link.publisher()

    async def open(self, queue: str | None) -> None:
        if queue is not None:
            self.link.consume(queue, self._on_delivery, prefetch=100)
        await self.link.open()

    def _on_delivery(self, delivery: Delivery) -> None:
        delivery.ack()
        self.deliveries.put_nowait(delivery)

    async def next(self) -> Delivery:
        return await asyncio.wait_for(self.deliveries.get(), PATIENCE_S)

    async def heartbeat(self, **state: Any) -> None:
        target = self.registration.heartbeat.publish
        assert target is not None
        report = StatusReport(self.id, {"heartbeat_period": 30, **state}, {})
        await self.publisher.publish_to(target, encode(report))

    async def publish_result(self, body: bytes) -> None:
        target = self.registration.result.publish
        assert target is not None
        await self.publisher.publish_to(target, body)


class UserEndpoint(Peer):
    """Consumes tasks; `answer` sends the result of one."""

    async def next_task(self) -> Task:
        message = decode((await self.next()).body)
        assert isinstance(message, Task)
        return message

    async def answer(self, task_id: str, data: str = "00\nresult", **changed: Any) -> bytes:
        body = encode(Result(task_id=task_id, data=data, details={"python_version": "3.11.7"}, **changed))
        await self.publish_result(body)
        return body


class Manager(Peer):
    """Takes commands, and starts user endpoints as it is told by `behave` (a coroutine function)."""

    def __init__(self, registration: dict[str, Any]) -> None:
        super().__init__(registration)
        self.commands: list[dict[str, Any]] = []
        self.started: dict[str, UserEndpoint] = {}

    async def next_command(self) -> dict[str, Any]:
        delivery = await self.next()
        assert delivery.properties.content_type == "application/json"
        assert delivery.properties.timestamp
        command: dict[str, Any] = json.loads(delivery.body)
        self.commands.append(command)
        return command

    async def start_next(self) -> UserEndpoint:
        """Obey the next start command: a user endpoint that has sent its first heartbeat."""
        endpoint = await self.user_endpoint(await self.next_command())
        await endpoint.heartbeat(active=True)
        return endpoint

    async def user_endpoint(self, command: dict[str, Any]) -> UserEndpoint:
        endpoint = UserEndpoint(command["kwargs"]["amqp_creds"])
        await endpoint.open(endpoint.registration.task.queue)
        self.started[endpoint.id] = endpoint
        return endpoint


@asynccontextmanager
async def manager(registration: dict[str, Any]) -> AsyncIterator[Manager]:
    """A manager that is online."""
    running = Manager(registration)
    command = running.registration.command
    assert command is not None
    await running.open(command.queue)
    try:
        await running.heartbeat()
        yield running
    finally:
        for endpoint in running.started.values():
            await endpoint.link.close()
        await running.link.close()
