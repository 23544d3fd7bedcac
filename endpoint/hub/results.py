"""Results: stored, then forwarded to the queue of their task group, then acknowledged."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from endpoint.amqp.consumer import Delivery
from endpoint.amqp.publisher import Publisher
from endpoint.errors import EndpointError, Failure, MalformedMessage
from endpoint.hub.bounds import fits
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.models import Task, TaskGroup
from endpoint.hub.store import Store
from endpoint.hub.tasks import chunks
from endpoint.wire.codec import decode, encode
from endpoint.wire.messages import Result
from endpoint.wire.results import error_result

log = logging.getLogger(__name__)

MAX_DETAILS = 64 * 1024  # characters


@dataclass
class _Arrived:
    """A result, the bytes it came in, and who the broker says has sent it."""

    result: Result
    body: bytes
    sender: str | None
    delivery: Delivery | None
    forward_to: str | None = None
    high_assurance: bool = False

    @property
    def redelivered(self) -> bool:
        return self.delivery is not None and self.delivery.redelivered


class Results:
    """What endpoints send back. A result for a task that has one already changes nothing."""

    def __init__(self, store: Store, broker: BrokerAdmin, publisher: Publisher) -> None:
        self._store = store
        self._broker = broker
        self._publisher = publisher

    async def handle(self, deliveries: list[Delivery]) -> None:
        """Deal with deliveries of the result queue; raises the database's errors, then nothing is settled."""
        arrived: list[_Arrived] = []
        for delivery in deliveries:
            try:
                message = decode(delivery.body)
            except MalformedMessage as error:
                log.warning("A result was dropped: %s; it begins with %r", error, error.raw[:64])
                delivery.ack()
                continue
            if isinstance(message, Result):
                sender = self._broker.sender_of(delivery.routing_key)
                arrived.append(_Arrived(message, delivery.body, sender, delivery))
            else:
                log.warning("A %s on the result queue was dropped", type(message).__name__)
                delivery.ack()
        await self._store_all(arrived)
        for one in arrived:
            self._forward(one)

    async def fail(self, task_ids: Sequence[str], failure: Failure) -> None:
        """Give tasks that are not finished an error result of the hub's own."""
        results = [error_result(task_id, failure) for task_id in task_ids]
        arrived = [_Arrived(result, encode(result), None, None) for result in results]
        await self._store_all(arrived)
        for one in arrived:
            self._forward(one)

    async def _store_all(self, arrived: list[_Arrived]) -> None:
        if not arrived:
            return
        now = time.time()
        async with self._store.writing() as session:
            known: dict[str, tuple[Task, str | None]] = {}
            for ids in chunks([one.result.task_id for one in arrived]):
                query = select(Task, TaskGroup.queue).join(TaskGroup).where(Task.id.in_(ids))
                for task, has_queue in await session.execute(query):
                    queue = self._broker.group_queue(task.group_id, task.owner_id) if has_queue else None
                    known[task.id] = (task, queue)
            for one in arrived:
                if one.result.task_id not in known:
                    log.warning("A result for an unknown task was dropped", extra={"task": one.result.task_id})
                    continue
                task, queue = known[one.result.task_id]
                if not _is_its(one, task):
                    continue
                fresh = task.completed is None
                if fresh:
                    _finish(task, one.result, now)
                if fresh or one.redelivered:
                    # A copy that was redelivered may be the one that an earlier run stored and did not forward.
                    one.forward_to, one.high_assurance = queue, task.high_assurance

    def _forward(self, one: _Arrived) -> None:
        delivery = one.delivery
        if one.forward_to is None:
            if delivery is not None:
                delivery.ack()
            return
        properties: dict[str, Any] = {"delivery_mode": 2, "timestamp": int(time.time())}
        body = one.body
        if one.high_assurance:  # such a result leaves the hub by REST only; this is the notice that it is there
            properties["headers"] = {"high_assurance": True}
            body = encode(Result(task_id=one.result.task_id, data="", details=one.result.details))
        confirmed = self._publisher.publish(body, exchange="", routing_key=one.forward_to, properties=properties)
        confirmed.add_done_callback(lambda done: _forwarded(done, one))


def _is_its(one: _Arrived, task: Task) -> bool:
    """Whether the task belongs to the endpoint that sent the result; the hub's own results have no sender."""
    if one.delivery is None or one.sender == task.endpoint_id:
        return True
    log.error(
        "A result was dropped: it came from endpoint %s, the task is another's",
        one.sender,
        extra={"task": task.id, "endpoint": task.endpoint_id},
    )
    return False


def _finish(task: Task, result: Result, now: float) -> None:
    details = dict(result.details or {})
    if not fits(details, MAX_DETAILS):
        details = {"truncated": True}
    if result.task_statuses:
        details["task_transitions"] = {one.state.value: one.timestamp / 1e9 for one in result.task_statuses}
    error = result.error_details
    task.completed = now
    task.failed = error is not None
    task.error_code = None if error is None else error.code[:128]
    task.data = result.data
    task.details = details


def _forwarded(done: asyncio.Future[None], one: _Arrived) -> None:
    error = done.exception()
    if isinstance(error, EndpointError) and error.code == "PUBLISH_REFUSED":
        # Nobody waits on the queue any more; the result is stored, and can be asked for.
        log.info("A result was not forwarded: %s", error, extra={"task": one.result.task_id})
    elif error is not None:
        return  # the link is gone: the broker delivers the result again
    if one.delivery is not None:
        one.delivery.ack()
