"""The service's side of an endpoint's queues: publishes tasks, and notes every answer and heartbeat with its time.

The queues are durable and the messages persistent, so that a broker may die. The reader lives in a thread of its own
and connects again by itself; it acknowledges what it has noted.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

from endpoint.errors import EndpointError
from endpoint.wire.codec import decode
from endpoint.wire.messages import Result, StatusReport

PATIENCE_S = 30.0  # for a broker that is starting
AGAIN_S = 0.2
TURN_S = 0.1  # how long the reader listens before it looks whether it shall end
UNREAD = 200  # messages on their way to the reader

Published = tuple[bytes, dict[str, Any] | None]


@dataclass(frozen=True)
class Answer:
    """A result message. at: seconds of the monotonic clock. seen_before: the broker gave us this message before."""

    at: float
    task_id: str
    result: Result
    digest: str
    seen_before: bool


@dataclass(frozen=True)
class Beat:
    """A heartbeat. at: seconds of the monotonic clock; state: its `global_state`."""

    at: float
    state: dict[str, Any]


class FaultClient:
    """One endpoint's queues, made at the beginning and deleted at the end. A context manager.

    endpoint_url: where the endpoint is to find the broker; may be changed before a registration is asked for.
    """

    def __init__(self, url: str, endpoint_url: str | None = None) -> None:
        self._url = url
        self.endpoint_url = endpoint_url or url
        self.endpoint_id = str(uuid.uuid4())
        self.answers: list[Answer] = []
        self.beats: list[Beat] = []
        self.unreadable = 0
        self._exchange = f"exchange.{self.endpoint_id}"
        self._tasks, self._results, self._beats = (f"{kind}.{self.endpoint_id}" for kind in ("task", "result", "beat"))
        self._news = threading.Condition()
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, name="fault-client", daemon=True)

    def __enter__(self) -> FaultClient:
        with self._connected() as channel:
            channel.exchange_declare(self._exchange, "direct", durable=True)
            for queue in (self._tasks, self._results, self._beats):
                channel.queue_declare(queue, durable=True)
                channel.queue_bind(queue, self._exchange, queue)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._reader.join(PATIENCE_S)
        with contextlib.suppress(pika.exceptions.AMQPError, OSError), self._connected(patience_s=5) as channel:
            for queue in (self._tasks, self._results, self._beats):
                channel.queue_delete(queue)
            channel.exchange_delete(self._exchange)

    def registration(self) -> dict[str, Any]:
        """What the web service answers to an endpoint that registers."""

        def info(queue: str) -> dict[str, Any]:
            return {"connection_url": self.endpoint_url, "exchange": self._exchange, "queue": queue}

        def with_target(queue: str) -> dict[str, Any]:
            properties = {"delivery_mode": 2}
            target = {"exchange": self._exchange, "routing_key": queue, "mandatory": True, "properties": properties}
            return {**info(queue), "queue_publish_kwargs": target}

        return {
            "endpoint_id": self.endpoint_id,
            "task_queue_info": info(self._tasks),
            "result_queue_info": with_target(self._results),
            "heartbeat_queue_info": with_target(self._beats),
        }

    def publish(self, messages: Sequence[Published]) -> None:
        """Put messages into the endpoint's queue; returns when the broker has them on its disk."""
        with self._connected() as channel:
            channel.confirm_delivery()
            for body, headers in messages:
                properties = pika.BasicProperties(headers=headers, delivery_mode=2)
                channel.basic_publish(self._exchange, self._tasks, body, properties, mandatory=True)

    def waiting_tasks(self) -> int:
        """How many tasks are in the queue and with nobody."""
        with self._connected() as channel:
            return int(channel.queue_declare(self._tasks, passive=True).method.message_count)

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until `condition` holds, which is asked at every message; whether it does."""
        with self._news:
            return self._news.wait_for(condition, timeout)

    def answered(self) -> set[str]:
        return {answer.task_id for answer in list(self.answers)}

    @contextlib.contextmanager
    def _connected(self, patience_s: float = PATIENCE_S) -> Any:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                connection = pika.BlockingConnection(pika.URLParameters(self._url))
                break
            except (pika.exceptions.AMQPError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_S)
        try:
            yield connection.channel()
        finally:
            with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                connection.close()

    def _read(self) -> None:
        while not self._closing.is_set():
            try:
                self._read_one_connection()
            except (pika.exceptions.AMQPError, OSError):
                self._closing.wait(AGAIN_S)

    def _read_one_connection(self) -> None:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(self._url))) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=UNREAD)
            for queue, note in ((self._results, self._note_answer), (self._beats, self._note_beat)):
                channel.basic_consume(queue, _noting(note))
            while not self._closing.is_set():
                connection.process_data_events(time_limit=TURN_S)

    def _note_answer(self, body: bytes, redelivered: bool) -> None:
        now = time.monotonic()
        digest = hashlib.sha256(body).hexdigest()
        message = _decoded(body)
        with self._news:
            if not isinstance(message, Result):
                self.unreadable += 1
                return
            before = redelivered and any(answer.digest == digest for answer in self.answers)
            self.answers.append(Answer(now, message.task_id, message, digest, before))
            self._news.notify_all()

    def _note_beat(self, body: bytes, _redelivered: bool) -> None:
        now = time.monotonic()
        message = _decoded(body)
        with self._news:
            if isinstance(message, StatusReport):
                self.beats.append(Beat(now, dict(message.global_state)))
            self._news.notify_all()


def _noting(note: Callable[[bytes, bool], None]) -> Callable[..., None]:
    def on_message(channel: BlockingChannel, method: Any, _properties: Any, body: bytes) -> None:
        note(body, bool(method.redelivered))
        channel.basic_ack(method.delivery_tag)

    return on_message


def _decoded(body: bytes) -> object:
    try:
        return decode(body)
    except EndpointError:
        return None
