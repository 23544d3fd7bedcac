"""The client's side of a measurement, lean: it shares the machine with what it measures."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pika

from bench.processes import Tree, freeze, thaw
from endpoint.wire.codec import decode, encode
from endpoint.wire.messages import Result, Task
from tests.support.user_endpoint import Queues, headers, packed

PATIENCE_S = 30.0  # without a single new result, before the rest counts as lost
POLL_S = 0.003  # how often a burst's results are counted: 0.3 % of a second's burst


class Silence(Exception):
    """A message that had to come did not."""


@dataclass(frozen=True)
class Recipe:
    """A task's message around its id, made once: to serialize each task anew would be most of the client's time."""

    head: bytes
    tail: bytes

    @classmethod
    def of(cls, function: Callable[..., object], *arguments: object) -> Recipe:
        sample = str(uuid.uuid4())
        head, tail = encode(Task(sample, packed(function, arguments, {}))).split(sample.encode())
        return cls(head, tail)

    def body(self, task_id: str) -> bytes:
        return self.head + task_id.encode() + self.tail


class Listener:
    """Consumes from some queues on an existing connection, and notes when each message came. A context manager."""

    def __init__(self, queues: Queues, names: Iterable[str]) -> None:
        self._connection = queues.channel.connection
        self._names = list(names)
        self._arrived: dict[str, deque[tuple[float, bytes]]] = defaultdict(deque)

    def __enter__(self) -> Listener:
        self._channel = self._connection.channel()
        for name in self._names:
            self._channel.basic_consume(name, self._note(name), auto_ack=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def next(self, name: str, timeout: float) -> tuple[float, bytes]:
        """The monotonic time and the body of the next message on a queue. Raises Silence."""
        deadline = time.monotonic() + timeout
        arrived = self._arrived[name]
        while not arrived:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Silence(f"nothing came on the queue {name.split('.')[0]} within {timeout:.0f} s")
            self._connection.process_data_events(time_limit=left)
        return arrived.popleft()

    def _note(self, name: str) -> Callable[[Any, Any, Any, bytes], None]:
        arrived = self._arrived[name]

        def note(_channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
            arrived.append((time.monotonic(), body))

        return note


@dataclass(frozen=True)
class Burst:
    """count: how many tasks; seconds: from the thaw to the last result; lost: tasks without a good result."""

    count: int
    seconds: float
    lost: int

    @property
    def rate(self) -> float:
        """Results a second."""
        return (self.count - self.lost) / self.seconds


def publish(queues: Queues, recipe: Recipe) -> str:
    """Publish one task; returns its id."""
    task_id = str(uuid.uuid4())
    queues.publish(recipe.body(task_id), headers(task_id))
    return task_id


def ask(queues: Queues, listener: Listener, recipe: Recipe, timeout: float = PATIENCE_S) -> float:
    """Publish one task and wait for its result; seconds from just before to just after. Raises Silence."""
    task_id = str(uuid.uuid4())
    properties = pika.BasicProperties(headers=headers(task_id))
    body = recipe.body(task_id)
    before = time.monotonic()
    queues.channel.basic_publish(queues.exchange, queues.task, body, properties)
    came, answer = listener.next(queues.result, timeout)
    if answered_by(answer) != task_id:
        raise Silence("an error, or another task's result, came instead of the result")
    return came - before


def burst(queues: Queues, tree: Tree, recipe: Recipe, count: int) -> Burst:
    """Publish tasks while the tree is frozen, let it go, and time it up to the last result.

    The results are counted by the length of their queue, and read afterwards: the client and the broker's delivery
    take no part of the processors that are measured.
    """
    queues.channel.queue_purge(queues.result)
    frozen = freeze(tree)
    try:
        published = {publish(queues, recipe) for _ in range(count)}
        queues.waiting(queues.task)  # an answer to this means that the broker has all before it
    finally:
        began = thaw(frozen)
    ended = _until_there(queues, count)
    answered, late = _read(queues, published)
    return Burst(count, (late or ended) - began, len(published - answered))


def _until_there(queues: Queues, count: int) -> float:
    """The monotonic time at which so many results were there, or at which no more came."""
    seen, changed = 0, time.monotonic()
    while seen < count:
        time.sleep(POLL_S)
        waiting, now = queues.waiting(queues.result), time.monotonic()
        if waiting != seen:
            seen, changed = waiting, now
        elif now - changed > PATIENCE_S:
            break
    return changed


def _read(queues: Queues, published: set[str]) -> tuple[set[str], float | None]:
    """The ids of the tasks with a good result; and when the last one came, if the queue was long enough without it.

    That is so where a result comes twice.
    """
    answered: set[str] = set()
    late = None
    there, read = queues.waiting(queues.result), 0
    with Listener(queues, [queues.result]) as listener, contextlib.suppress(Silence):
        while len(answered) < len(published):
            came, body = listener.next(queues.result, PATIENCE_S / 3)
            read += 1
            task_id = answered_by(body)
            if task_id in published and task_id not in answered:
                answered.add(task_id)
                late = came if read > there else None
    return answered, late


def answered_by(body: bytes) -> str | None:
    """The id of the task that a message answers; None for an error result."""
    message = decode(body)
    if isinstance(message, Result):
        return message.task_id if message.error_details is None else None
    return message.task_id if isinstance(message, Task) else None  # the echo sends the task itself
