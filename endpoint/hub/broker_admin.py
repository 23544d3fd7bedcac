"""What of RabbitMQ belongs to whom: queues, exchanges, users and permissions, through its management API.

    exchange  tasks                 direct; the task queues are bound to it by their names
    exchange  endpoints             topic; endpoints publish to it with the keys ENDPOINT.results, ENDPOINT.heartbeats
    queue     results, heartbeats   bound to `endpoints`; the hub reads them
    queue     tasks.ENDPOINT        the endpoint reads it
    queue     cancels.ENDPOINT      the endpoint reads it: what is cancelled need not wait behind tasks
    queue     commands.ENDPOINT     the manager reads it
    queue     groups.OWNER.GROUP    results of a task group, for the SDK of the identity that owns the group
    user      endpoint.ENDPOINT     reads its own three queues, publishes to `endpoints` with its own two keys
    user      client.OWNER          reads the owner's group queues, publishes nothing

RabbitMQ asks for no permission where a client checks passively that a queue or an exchange is there, and it checks the
keys of a topic exchange against a user's topic permissions: so a key says truly who published a message.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from endpoint.errors import AccessRefused, ConfigError, NetworkFailure, Stage, UnexpectedAnswer

TASK_EXCHANGE = "tasks"
ENDPOINT_EXCHANGE = "endpoints"
RESULT_QUEUE = "results"
HEARTBEAT_QUEUE = "heartbeats"
HEARTBEAT_TTL = 60 * 1000  # ms; an older one would make an endpoint look alive that isn't
CANCEL_TTL = 24 * 3600 * 1000  # ms; an endpoint remembers one as long, whose task doesn't come
MOST_CANCELS = 100_000  # in a queue that nobody reads
GROUP_EXPIRY = 14 * 24 * 3600 * 1000  # ms that a group's queue lives on while nobody reads it
TIMEOUT = 20.0  # seconds, for one request

_NOTHING = "^$"


@dataclass(frozen=True)
class EndpointQueues:
    """The queue descriptions of a registration answer; `command_queue_info` for managers only."""

    task_queue_info: dict[str, Any]
    result_queue_info: dict[str, Any]
    heartbeat_queue_info: dict[str, Any]
    command_queue_info: dict[str, Any] | None


class BrokerAdmin:
    """Gives endpoints and clients their part of the broker, and takes it away; every method can be repeated.

    url, user, password: the management API, and a user with the tag `administrator`.
    amqp_url_base: where endpoints and clients find the broker, `amqp[s]://host:port`.
    hub_amqp_url_base: where the hub finds it, if that is another address.

    The methods raise NetworkFailure when the API can't be reached, AccessRefused when it refuses the user, and
    UnexpectedAnswer for everything else that isn't what was asked for.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        amqp_url_base: str,
        vhost: str,
        *,
        hub_amqp_url_base: str | None = None,
    ) -> None:
        self._vhost = vhost
        self._user = user
        self._password = password
        self._amqp_url_base = amqp_url_base
        self._hub_amqp_url_base = hub_amqp_url_base or amqp_url_base
        for base in (self._amqp_url_base, self._hub_amqp_url_base):
            _require_url(base, ("amqp", "amqps"))
        _require_url(url, ("http", "https"))
        # Kept in memory only, and until the hub ends: clients that connect at the same time must not undo each
        # other's password.
        self._client_passwords: dict[str, str] = {}
        self._http = httpx.AsyncClient(
            base_url=f"{url.rstrip('/')}/api/",
            auth=(user, password),
            timeout=TIMEOUT,
            transport=httpx.AsyncHTTPTransport(retries=2),
        )

    async def close(self) -> None:
        """Close the connections to the management API."""
        await self._http.aclose()

    # What everybody shares

    async def prepare(self) -> None:
        """Make the virtual host with the exchanges and the hub's own queues, where they are missing."""
        await self._call("PUT", _path("vhosts", self._vhost))
        await self._call(
            "PUT",
            _path("permissions", self._vhost, self._user),
            {"configure": ".*", "write": ".*", "read": ".*"},
        )
        await asyncio.gather(
            self._make_exchange(TASK_EXCHANGE, "direct"),
            self._make_exchange(ENDPOINT_EXCHANGE, "topic"),
            self._make_queue(RESULT_QUEUE),
            self._make_heartbeat_queue(),
        )
        await asyncio.gather(
            self._bind(ENDPOINT_EXCHANGE, RESULT_QUEUE, f"*.{RESULT_QUEUE}"),
            self._bind(ENDPOINT_EXCHANGE, HEARTBEAT_QUEUE, f"*.{HEARTBEAT_QUEUE}"),
        )

    def hub_connection_url(self) -> str:
        """The hub's own connection; it has the credentials of the administrator."""
        return self._connection_url(self._user, self._password, base=self._hub_amqp_url_base)

    def task_queue(self, endpoint_id: str) -> str:
        """The name of the queue from which an endpoint takes its tasks."""
        return f"tasks.{endpoint_id}"

    def cancel_queue(self, endpoint_id: str) -> str:
        """The name of the queue from which an endpoint takes what is cancelled."""
        return f"cancels.{endpoint_id}"

    def command_queue(self, endpoint_id: str) -> str:
        """The name of the queue from which a manager takes its commands."""
        return f"commands.{endpoint_id}"

    def group_queue(self, group_id: str, owner: str) -> str:
        """The name of the queue on which the SDK of `owner` waits for the results of a task group."""
        return f"{self._queue_prefix(owner)}{group_id}"

    def sender_of(self, routing_key: str) -> str | None:
        """The endpoint that published a message with this key, for which the broker vouches; None for other keys."""
        endpoint_id, dot, what = routing_key.rpartition(".")
        return endpoint_id if dot and what in (RESULT_QUEUE, HEARTBEAT_QUEUE) else None

    # Endpoints

    async def provision_endpoint(self, endpoint_id: str, *, with_commands: bool) -> EndpointQueues:
        """Make an endpoint's queues and user, and give the user a new password.

        Connections that were opened with the old password stay open.
        """
        task_queue = self.task_queue(endpoint_id)
        await self._make_queue(task_queue)
        await self._make_queue(
            self.cancel_queue(endpoint_id), {"x-message-ttl": CANCEL_TTL, "x-max-length": MOST_CANCELS}
        )
        if with_commands:
            await self._make_queue(self.command_queue(endpoint_id))
        await self._bind(TASK_EXCHANGE, task_queue, task_queue)
        return await self.refresh_credentials(endpoint_id, with_commands=with_commands)

    async def refresh_credentials(self, endpoint_id: str, *, with_commands: bool = False) -> EndpointQueues:
        """Give an endpoint's user a new password; its queues stay as they are."""
        return self._describe(endpoint_id, await self._make_endpoint_user(endpoint_id), with_commands=with_commands)

    async def disconnect_endpoint(self, endpoint_id: str) -> None:
        """Close an endpoint's connections and refuse new ones until it is provisioned again; its queues stay."""
        await self._delete("users", _endpoint_user(endpoint_id))

    async def remove_endpoint(self, endpoint_id: str) -> None:
        """Take everything of an endpoint away: its connections are closed, its queues and what is in them are lost."""
        await self.disconnect_endpoint(endpoint_id)
        await asyncio.gather(
            self._delete("queues", self._vhost, self.task_queue(endpoint_id)),
            self._delete("queues", self._vhost, self.cancel_queue(endpoint_id)),
            self._delete("queues", self._vhost, self.command_queue(endpoint_id)),
        )

    async def _make_endpoint_user(self, endpoint_id: str) -> str:
        user, password = _endpoint_user(endpoint_id), _new_password()
        me = re.escape(endpoint_id)
        await self._make_user(user, password)
        await self._call(
            "PUT",
            _path("topic-permissions", self._vhost, user),
            {"exchange": ENDPOINT_EXCHANGE, "write": rf"^{me}\.({RESULT_QUEUE}|{HEARTBEAT_QUEUE})$", "read": _NOTHING},
        )
        # Last: a user without its topic permissions may publish with any key.
        await self._call(
            "PUT",
            _path("permissions", self._vhost, user),
            {"configure": _NOTHING, "write": f"^{ENDPOINT_EXCHANGE}$", "read": rf"^(tasks|cancels|commands)\.{me}$"},
        )
        return self._connection_url(user, password)

    def _describe(self, endpoint_id: str, url: str, *, with_commands: bool) -> EndpointQueues:
        def published(queue: str) -> dict[str, Any]:
            return {
                "connection_url": url,
                "exchange": ENDPOINT_EXCHANGE,
                "queue": queue,
                "queue_publish_kwargs": {
                    "exchange": ENDPOINT_EXCHANGE,
                    "routing_key": f"{endpoint_id}.{queue}",
                    "mandatory": True,
                    "properties": {"delivery_mode": 2},
                },
            }

        commands = {"connection_url": url, "queue": self.command_queue(endpoint_id)} if with_commands else None
        return EndpointQueues(
            task_queue_info={
                "connection_url": url,
                "exchange": TASK_EXCHANGE,
                "queue": self.task_queue(endpoint_id),
                "cancel_queue": self.cancel_queue(endpoint_id),
            },
            result_queue_info=published(RESULT_QUEUE),
            heartbeat_queue_info=published(HEARTBEAT_QUEUE),
            command_queue_info=commands,
        )

    # Clients

    async def client_credentials(self, identity: str) -> tuple[str, str]:
        """The connection URL with which an identity reads its group queues, and what their names begin with."""
        user, prefix = _client_user(identity), self._queue_prefix(identity)
        password = self._client_passwords.setdefault(identity, _new_password())
        await self._make_user(user, password)
        await self._call(
            "PUT",
            _path("permissions", self._vhost, user),
            {"configure": _NOTHING, "write": _NOTHING, "read": f"^{re.escape(prefix)}"},
        )
        return self._connection_url(user, password), prefix

    async def provision_group_queue(self, group_id: str, owner: str) -> str:
        """Make the queue of a task group; returns the connection URL with which its owner reads it."""
        (url, _), _ = await asyncio.gather(
            self.client_credentials(owner),
            self._make_queue(self.group_queue(group_id, owner), {"x-expires": GROUP_EXPIRY}),
        )
        return url

    async def remove_client(self, identity: str) -> None:
        """Close a client's connections and refuse new ones; its group queues expire by themselves."""
        self._client_passwords.pop(identity, None)
        await self._delete("users", _client_user(identity))

    def _queue_prefix(self, identity: str) -> str:
        return f"groups.{identity}."

    # The management API

    async def _make_user(self, user: str, password: str) -> None:
        await self._call("PUT", _path("users", user), {"password": password, "tags": ""})

    async def _make_exchange(self, name: str, kind: str) -> None:
        await self._call("PUT", _path("exchanges", self._vhost, name), {"type": kind, "durable": True})

    async def _make_queue(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        await self._call("PUT", _path("queues", self._vhost, name), {"durable": True, "arguments": arguments or {}})

    async def _make_heartbeat_queue(self) -> None:
        arguments = {"x-message-ttl": HEARTBEAT_TTL}
        try:
            await self._make_queue(HEARTBEAT_QUEUE, arguments)
        except UnexpectedAnswer as e:
            # A version before this one had another TTL, which can't be changed; what is in the queue can be lost.
            if "inequivalent arg" not in e.failure.detail:
                raise
            await self._delete("queues", self._vhost, HEARTBEAT_QUEUE)
            await self._make_queue(HEARTBEAT_QUEUE, arguments)

    async def _bind(self, exchange: str, queue: str, key: str) -> None:
        await self._call("POST", _path("bindings", self._vhost, "e", exchange, "q", queue), {"routing_key": key})

    async def _delete(self, *parts: str) -> None:
        await self._call("DELETE", _path(*parts), missing_is_fine=True)

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, missing_is_fine: bool = False
    ) -> None:
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.HTTPError as e:
            raise NetworkFailure(
                f"RabbitMQ's management API at {self._http.base_url.copy_with(path='/')} can't be reached: "
                f"{str(e) or type(e).__name__}",
                hint="Check that the broker runs with the plugin rabbitmq_management",
                stage=Stage.HUB,
            ) from e
        if answer.is_success or (missing_is_fine and answer.status_code == httpx.codes.NOT_FOUND):
            return
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise AccessRefused(
                f"RabbitMQ's management API refuses the user {self._user} ({answer.status_code})",
                hint="The hub needs the password of a user with the tag administrator",
                stage=Stage.HUB,
            )
        raise UnexpectedAnswer(
            f"RabbitMQ's management API answered {answer.status_code} to {method} {path}",
            detail=answer.text[:1000],
            stage=Stage.HUB,
        )

    def _connection_url(self, user: str, password: str, *, base: str | None = None) -> str:
        parts = urlsplit(base or self._amqp_url_base)
        where = f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc.rpartition('@')[2]}"
        return urlunsplit((parts.scheme, where, f"/{quote(self._vhost, safe='')}", parts.query, ""))


def _endpoint_user(endpoint_id: str) -> str:
    return f"endpoint.{endpoint_id}"


def _client_user(identity: str) -> str:
    return f"client.{identity}"


def _new_password() -> str:
    return secrets.token_urlsafe(24)


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _require_url(url: str, schemes: tuple[str, ...]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ConfigError(f"{url!r} is not a URL that begins with {wanted} and names a host", stage=Stage.HUB)
