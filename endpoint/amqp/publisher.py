"""The publishing role on a link: every message is kept until the broker has confirmed it."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pika.exceptions
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from endpoint.amqp.session import Session
from endpoint.errors import EndpointError, Mender, Stage
from endpoint.wire.queues import PublishTarget

# What AMQP has; a service's answer may name properties of its own, which only readers of JSON would understand.
_PROPERTIES = frozenset(inspect.signature(BasicProperties).parameters)


class PublishRefused(EndpointError):
    """The broker took a message and could not keep it (no queue for it, or a queue that is full)."""

    mender = Mender.SERVICE
    retry = True
    stage = Stage.PUBLISH
    code = "PUBLISH_REFUSED"


@dataclass(eq=False)
class _Outgoing:
    body: bytes
    exchange: str
    routing_key: str
    properties: BasicProperties
    mandatory: bool
    confirmed: asyncio.Future[None]
    returned: str = ""


class Publisher:
    """Publishes with confirms. What is not confirmed when a connection breaks is sent again on the next one.

    So a message may arrive twice, never not at all; receivers of ours and the official service know tasks by their id.
    """

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._waiting: deque[_Outgoing] = deque()
        self._unconfirmed: dict[int, _Outgoing] = {}
        self._by_message_id: dict[str, _Outgoing] = {}
        self._ids = itertools.count(1)
        self._next_tag = 1

    @property
    def pending(self) -> int:
        """How many messages wait for their confirmation."""
        return len(self._waiting) + len(self._unconfirmed)

    def publish(
        self,
        body: bytes,
        *,
        exchange: str,
        routing_key: str,
        properties: Mapping[str, Any] | None = None,
        mandatory: bool = True,
    ) -> asyncio.Future[None]:
        """Send `body`; the future is done when the broker has confirmed it.

        It fails with PublishRefused when the broker returns or refuses the message.
        """
        known = {name: value for name, value in (properties or {}).items() if name in _PROPERTIES}
        amqp_properties = BasicProperties(**{"message_id": str(next(self._ids)), **known})
        outgoing = _Outgoing(
            body, exchange, routing_key, amqp_properties, mandatory, asyncio.get_running_loop().create_future()
        )
        self._by_message_id[str(amqp_properties.message_id)] = outgoing
        if self._channel is None:
            self._waiting.append(outgoing)
        else:
            self._send(self._channel, outgoing)
        return outgoing.confirmed

    def publish_to(self, target: PublishTarget, body: bytes, **properties: Any) -> asyncio.Future[None]:
        """`publish` with what a registration answer says of a queue; `properties` are added to the target's."""
        return self.publish(
            body,
            exchange=target.exchange,
            routing_key=target.routing_key,
            properties={**target.properties, **properties},
            mandatory=target.mandatory,
        )

    async def drain(self) -> None:
        """Wait until nothing is unconfirmed."""
        while outgoing := next(iter([*self._unconfirmed.values(), *self._waiting]), None):
            await asyncio.wait((outgoing.confirmed,))

    async def attach(self, session: Session) -> None:
        """Start publishing on a session that was just opened, the kept messages first and in their order."""
        channel = await session.channel()
        selected: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(
            self._on_confirm, callback=lambda frame: None if selected.done() else selected.set_result(frame)
        )
        await session.answer(selected)
        self._next_tag = 1
        self._channel = channel
        for _ in range(len(self._waiting)):
            self._send(channel, self._waiting.popleft())

    def detach(self) -> None:
        """The session is gone: what it did not confirm goes in front of what waits."""
        self._channel = None
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()

    def fail(self, error: EndpointError) -> None:
        """The link is gone for good: nothing that waits will be confirmed."""
        self.detach()
        while self._waiting:
            self._finish(self._waiting.popleft(), error)

    def _send(self, channel: Channel, outgoing: _Outgoing) -> None:
        outgoing.returned = ""
        try:
            channel.basic_publish(
                outgoing.exchange, outgoing.routing_key, outgoing.body, outgoing.properties, outgoing.mandatory
            )
        except pika.exceptions.AMQPError:  # the channel closed under us: `detach` is on its way
            self._waiting.append(outgoing)
            return
        self._unconfirmed[self._next_tag] = outgoing
        self._next_tag += 1

    def _on_return(self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        # A returned message is confirmed as well, just behind: the confirmation settles it.
        if outgoing := self._by_message_id.get(str(properties.message_id)):
            outgoing.returned = f"{method.reply_code} {method.reply_text}"

    def _on_confirm(self, frame: Method) -> None:
        confirmation = frame.method
        for tag in self._tags_of(confirmation):
            outgoing = self._unconfirmed.pop(tag)
            if isinstance(confirmation, Basic.Nack):
                self._finish(outgoing, PublishRefused("The broker could not keep a message", detail="basic.nack"))
            elif outgoing.returned:
                self._finish(
                    outgoing, PublishRefused("The broker has no queue for a message", detail=outgoing.returned)
                )
            else:
                self._finish(outgoing, None)

    def _tags_of(self, confirmation: Basic.Ack | Basic.Nack) -> list[int]:
        if not confirmation.multiple:
            return [confirmation.delivery_tag] if confirmation.delivery_tag in self._unconfirmed else []
        return [tag for tag in self._unconfirmed if tag <= confirmation.delivery_tag]

    def _finish(self, outgoing: _Outgoing, error: EndpointError | None) -> None:
        self._by_message_id.pop(str(outgoing.properties.message_id), None)
        if outgoing.confirmed.done():
            return
        if error is None:
            outgoing.confirmed.set_result(None)
        else:
            outgoing.confirmed.set_exception(error)
