"""The consuming role on a link: deliveries in, settlements out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from endpoint.amqp.session import Session
from endpoint.errors import NetworkFailure


class Delivery:
    """One message from a queue. Settle it once, with `ack` or `reject`; what comes after that is ignored.

    A delivery whose connection is gone can't be settled: the broker has taken it back and delivers it again.
    """

    kept = False  # nobody but the broker has it

    def __init__(self, channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._channel: Channel | None = channel
        self._tag = method.delivery_tag
        self.redelivered: bool = bool(method.redelivered)
        self.routing_key: str = method.routing_key or ""
        self.properties = properties
        self.headers: dict[str, Any] = properties.headers or {}
        self.body = body

    @property
    def settled(self) -> bool:
        """Whether `ack` or `reject` was called."""
        return self._channel is None

    def ack(self) -> None:
        """Tell the broker that the message is dealt with."""
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            channel.basic_ack(self._tag)

    def reject(self, *, requeue: bool = False) -> None:
        """Give the message back: to be delivered again (`requeue`), or to be dropped."""
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            channel.basic_reject(self._tag, requeue=requeue)


class Consumer:
    """Consumes one queue, with at most `prefetch` unsettled deliveries, whenever its link is up."""

    def __init__(
        self, queue: Callable[[], str], on_delivery: Callable[[Delivery], None], *, prefetch: int, exclusive: bool
    ) -> None:
        self._queue = queue
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._exclusive = exclusive
        self._channel: Channel | None = None
        self._tag: str = ""

    async def attach(self, session: Session) -> None:
        """Start consuming on a session that was just opened; raises if the broker refuses."""
        channel = await session.channel()
        await self._ask(session, lambda answer: channel.basic_qos(prefetch_count=self._prefetch, callback=answer))
        channel.add_on_cancel_callback(
            lambda _frame: session.lose(NetworkFailure(f"The broker took the queue {self._queue()} away"))
        )

        def on_message(_channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
            self._on_delivery(Delivery(channel, method, properties, body))

        frame = await self._ask(
            session,
            lambda answer: channel.basic_consume(
                self._queue(), on_message, auto_ack=False, exclusive=self._exclusive, callback=answer
            ),
        )
        self._channel, self._tag = channel, frame.method.consumer_tag

    def detach(self) -> None:
        """The session is gone; the deliveries it brought can't be settled any more."""
        self._channel = None

    async def cancel(self) -> None:
        """No more deliveries; those that are here can still be settled."""
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            done = asyncio.Event()
            channel.add_on_close_callback(lambda *_: done.set())
            channel.basic_cancel(self._tag, callback=lambda _frame: done.set())
            await done.wait()

    @staticmethod
    async def _ask(session: Session, call: Callable[[Callable[[Any], None]], object]) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call(lambda frame: None if answer.done() else answer.set_result(frame))
        return await session.answer(answer)
