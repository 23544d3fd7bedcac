"""Tasks on their way to the broker: stored before they are published, published again if that was interrupted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sqlalchemy import delete, select

from endpoint.amqp.publisher import Publisher, PublishRefused
from endpoint.errors import NetworkFailure
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.models import Outgoing
from endpoint.hub.refusals import EndpointGone, Unavailable
from endpoint.hub.results import Results
from endpoint.hub.store import Store

log = logging.getLogger(__name__)

REPLAY_AT_ONCE = 100
CLOSE_WAIT_S = 2.0


class Outbox:
    """Publishes stored tasks, and forgets each as soon as the broker has it."""

    def __init__(
        self, store: Store, broker: BrokerAdmin, publisher: Publisher, results: Results, *, patience_s: float
    ) -> None:
        self._store = store
        self._broker = broker
        self._publisher = publisher
        self._results = results
        self._patience_s = patience_s
        self._behind: set[asyncio.Task[None]] = set()

    async def send(self, tasks: Sequence[Outgoing]) -> None:
        """Publish tasks that are stored; returns when the broker has confirmed all of them.

        Raises Unavailable when that takes too long: the tasks stay stored, and are sent when the broker is back.
        """
        work = asyncio.create_task(self._send(tasks), name="publish tasks")
        self._behind.add(work)
        work.add_done_callback(self._behind.discard)
        try:
            await asyncio.wait_for(asyncio.shield(work), self._patience_s)
        except asyncio.TimeoutError as error:
            raise Unavailable("The message broker is away; the tasks are kept until it is back") from error

    async def replay(self) -> None:
        """Publish what an earlier process of this hub stored and could not publish. A task may be published twice."""
        last = 0
        while True:
            async with self._store.reading() as session:
                query = select(Outgoing).where(Outgoing.number > last).order_by(Outgoing.number).limit(REPLAY_AT_ONCE)
                tasks = (await session.scalars(query)).all()
            if not tasks:
                return
            log.info("Publishing %d tasks that an earlier run of the hub had stored", len(tasks))
            last = tasks[-1].number
            await self._send(tasks)

    async def close(self) -> None:
        """End what is under way. The link is closed by now: what it had not confirmed has failed, and stays stored."""
        if self._behind:
            _, late = await asyncio.wait(self._behind, timeout=CLOSE_WAIT_S)
            for work in late:
                work.cancel()

    async def _send(self, tasks: Sequence[Outgoing]) -> None:
        confirmed = [
            self._publisher.publish(
                task.body,
                exchange="",
                routing_key=self._broker.task_queue(task.endpoint_id),
                properties={"delivery_mode": 2, "headers": task.headers, "content_type": "application/json"},
            )
            for task in tasks
        ]
        outcomes = await asyncio.gather(*confirmed, return_exceptions=True)
        done: list[str] = []
        refused: list[str] = []
        for task, outcome in zip(tasks, outcomes, strict=True):
            if isinstance(outcome, NetworkFailure):
                continue  # the link was closed first: the task stays for the next run
            if isinstance(outcome, PublishRefused):
                refused.append(task.task_id)
            elif isinstance(outcome, BaseException):
                raise outcome
            done.append(task.task_id)
        async with self._store.writing() as session:
            await session.execute(delete(Outgoing).where(Outgoing.task_id.in_(done)))
        if refused:
            await self._results.fail(refused, EndpointGone("The endpoint was deleted before it got the task").failure)
