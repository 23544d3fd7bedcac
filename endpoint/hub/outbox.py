"""Tasks on their way to the broker: stored before they are published, published again if that was interrupted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.exc import SQLAlchemyError

from endpoint.amqp.publisher import Publisher, PublishRefused
from endpoint.errors import NetworkFailure
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.models import Outgoing
from endpoint.hub.refusals import EndpointGone
from endpoint.hub.results import Results
from endpoint.hub.store import Store
from endpoint.hub.tasks import chunks

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
        """Publish tasks that are stored; returns when the broker has confirmed them, or after `patience_s` seconds.

        In the latter case they are published as soon as the broker is back. They are accepted all the same: a client
        that is told to try again would have them run twice.
        """
        work = asyncio.create_task(self._send(tasks), name="publish tasks")
        self._behind.add(work)
        work.add_done_callback(self._behind.discard)
        _, late = await asyncio.wait((work,), timeout=self._patience_s)
        if late:
            log.warning("The message broker is away: %d tasks are kept until it is back", len(tasks))

    async def last_number(self) -> int:
        """The newest of the tasks that wait in the database; 0 for none."""
        async with self._store.reading() as session:
            return await session.scalar(select(func.max(Outgoing.number))) or 0

    async def replay(self, upto: int) -> None:
        """Publish what an earlier run of this hub stored, up to number `upto`, and could not publish.

        A task may so be published twice: the earlier run may have died before it noted the confirmation.
        """
        last = 0
        while last < upto:
            async with self._store.reading() as session:
                query = select(Outgoing).where(Outgoing.number > last, Outgoing.number <= upto)
                tasks = (await session.scalars(query.order_by(Outgoing.number).limit(REPLAY_AT_ONCE))).all()
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
        try:
            await self._forget(done)
        except SQLAlchemyError as error:  # the broker has them: it would be wrong to let the client try again
            log.error("Published tasks can't be taken out of the database: %s", error, exc_info=error)
        if refused:
            await self._results.fail(refused, EndpointGone("The endpoint was deleted before it got the task").failure)

    async def _forget(self, task_ids: list[str]) -> None:
        async with self._store.writing() as session:
            for ids in chunks(task_ids):
                await session.execute(delete(Outgoing).where(Outgoing.task_id.in_(ids)))
