"""Where to consume and publish: the queue descriptions in a registration answer.

A connection URL carries a password: nothing here puts a URL into an error, and `redacted_url` is for logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from endpoint.errors import MalformedMessage, UnexpectedAnswer
from endpoint.wire.messages import uuid_text

_QUEUES = ("task", "result", "heartbeat", "command")


@dataclass(frozen=True)
class PublishTarget:
    """How to publish to a queue: `properties` are AMQP basic properties, by name."""

    exchange: str
    routing_key: str
    mandatory: bool = True
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class QueueInfo:
    """One queue, and the broker that has it. `exchange` is "" and `publish` None where the answer names none.

    cancel_queue: of a task queue, where a service has one: the queue beside it for cancellations, which need not wait
    behind tasks there.
    """

    connection_url: str = field(repr=False)
    queue: str
    exchange: str = ""
    publish: PublishTarget | None = None
    cancel_queue: str | None = None

    @classmethod
    def parse(cls, doc: Any, amqp_port: int | None = None, *, name: str = "queue_info") -> QueueInfo:
        """The queue that `doc` describes, with `amqp_port` in its URL where given.

        Raises UnexpectedAnswer, which calls the document `name`.
        """
        if not isinstance(doc, Mapping):
            raise UnexpectedAnswer(f"{name} in the service's answer is not an object")
        url = _text(doc, "connection_url", name)
        parts = _split(url, name)
        if amqp_port is not None:
            url = _with_port(parts, amqp_port)
        exchange = doc.get("exchange") or ""
        if not isinstance(exchange, str):
            raise UnexpectedAnswer(f"{name}.exchange in the service's answer is not a string")
        cancel_queue = doc.get("cancel_queue") or None
        if not isinstance(cancel_queue, str | None):
            raise UnexpectedAnswer(f"{name}.cancel_queue in the service's answer is not a string")
        target = _target(doc.get("queue_publish_kwargs"), name)
        return cls(url, _text(doc, "queue", name), exchange, target, cancel_queue)

    @property
    def redacted_url(self) -> str:
        return redacted_url(self.connection_url)


@dataclass(frozen=True)
class Registration:
    """What the service answers to a registration, and a manager hands to its user endpoints as `amqp_creds`.

    A manager needs `heartbeat` and `command`, a user endpoint `task`, `result` and `heartbeat`. A service may leave out
    what its asker does not need: `task` and `result` raise UnexpectedAnswer when read in vain, `command` is None.
    """

    endpoint_id: str
    heartbeat: QueueInfo
    queues: Mapping[str, QueueInfo]

    @classmethod
    def parse(cls, doc: Any, amqp_port: int | None = None) -> Registration:
        """The registration in `doc`, with `amqp_port` in every URL where given; UnexpectedAnswer for anything else."""
        if not isinstance(doc, Mapping):
            raise UnexpectedAnswer("The registration answer is not an object")
        try:
            endpoint_id = uuid_text(doc.get("endpoint_id"), "endpoint_id")
        except MalformedMessage as error:
            raise UnexpectedAnswer(f"In the registration answer, {error.failure.reason}") from error
        queues = {
            name: QueueInfo.parse(doc[f"{name}_queue_info"], amqp_port, name=f"{name}_queue_info")
            for name in _QUEUES
            if doc.get(f"{name}_queue_info") is not None
        }
        for name in ("result", "heartbeat"):
            if name in queues and queues[name].publish is None:
                raise UnexpectedAnswer(f"{name}_queue_info in the service's answer lacks queue_publish_kwargs")
        if "heartbeat" not in queues:
            raise UnexpectedAnswer("The registration answer lacks heartbeat_queue_info")
        return cls(endpoint_id, queues["heartbeat"], queues)

    @property
    def task(self) -> QueueInfo:
        return self._needed("task")

    @property
    def result(self) -> QueueInfo:
        return self._needed("result")

    @property
    def command(self) -> QueueInfo | None:
        return self.queues.get("command")

    def _needed(self, name: str) -> QueueInfo:
        try:
            return self.queues[name]
        except KeyError:
            raise UnexpectedAnswer(f"The registration answer lacks {name}_queue_info") from None


def redacted_url(url: str) -> str:
    """`url` as a log may show it: *** for the password; a stand-in where it can't be read as a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "<unreadable URL>"
    if not parts.scheme or parts.hostname is None:
        return "<unreadable URL>"
    user = "" if parts.username is None else f"{parts.username}:***@"
    return f"{parts.scheme}://{user}{_host(parts)}{'' if port is None else f':{port}'}{parts.path}"


def _target(doc: Any, name: str) -> PublishTarget | None:
    if doc is None:
        return None
    where = f"{name}.queue_publish_kwargs"
    if not isinstance(doc, Mapping):
        raise UnexpectedAnswer(f"{where} in the service's answer is not an object")
    properties, exchange, mandatory = doc.get("properties") or {}, doc.get("exchange", ""), doc.get("mandatory", True)
    if not isinstance(properties, Mapping) or not isinstance(exchange, str) or not isinstance(mandatory, bool):
        raise UnexpectedAnswer(f"{where} in the service's answer has exchange, mandatory or properties of another type")
    return PublishTarget(exchange, _text(doc, "routing_key", where), mandatory, dict(properties))


def _text(doc: Mapping[str, Any], key: str, name: str) -> str:
    value = doc.get(key)
    if not isinstance(value, str) or not value:
        raise UnexpectedAnswer(f"{name} in the service's answer lacks {key}")
    return value


def _split(url: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError:
        raise UnexpectedAnswer(f"{name}.connection_url in the service's answer is not a URL") from None
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise UnexpectedAnswer(f"{name}.connection_url in the service's answer is not an amqp or amqps URL")
    return parts


def _with_port(parts: SplitResult, port: int) -> str:
    login, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}{at}{_host(parts)}:{port}").geturl()


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host
