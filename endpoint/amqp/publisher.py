"""The publishing role on a link: every message is kept until the broker has confirmed it."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


OnDone = Callable[[EndpointError | None], None]


@dataclass(eq=False)
class _Outgoing:
    message_id: str
    target: PublishTarget
    body: bytes
    on_done: OnDone
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
        self._properties: tuple[PublishTarget | None, BasicProperties] = (None, BasicProperties())
        self._drained: asyncio.Future[None] | None = None

    @property
    def pending(self) -> int:
        """How many messages wait for their confirmation."""
        return len(self._by_message_id)

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
        return self.publish_to(PublishTarget(exchange, routing_key, mandatory, dict(properties or {})), body)

    def publish_to(self, target: PublishTarget, body: bytes, **properties: Any) -> asyncio.Future[None]:
        """`publish` with what a registration answer says of a queue; `properties` are added to the target's."""
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if properties:
            target = replace(target, properties={**target.properties, **properties})
        self.send(target, body, lambda error: _settle(confirmed, error))
        return confirmed

    def send(self, target: PublishTarget, body: bytes, on_done: OnDone) -> None:
        """Send `body`. `on_done` is called once: with None when the broker has confirmed it, else with the error."""
        outgoing = _Outgoing(str(next(self._ids)), target, body, on_done)
        self._by_message_id[outgoing.message_id] = outgoing
        if self._channel is None:
            self._waiting.append(outgoing)
        else:
            self._send(self._channel, outgoing)

    async def drain(self) -> None:
        """Wait until nothing is unconfirmed."""
        while self._by_message_id:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._drained,))

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
        target = outgoing.target
        properties = self._properties_for(target)
        properties.message_id = outgoing.message_id
        try:
            channel.basic_publish(target.exchange, target.routing_key, outgoing.body, properties, target.mandatory)
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
        return list(itertools.takewhile(lambda tag: tag <= confirmation.delivery_tag, self._unconfirmed))

    def _finish(self, outgoing: _Outgoing, error: EndpointError | None) -> None:
        self._by_message_id.pop(outgoing.message_id, None)
        outgoing.on_done(error)
        if not self._by_message_id and self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def _properties_for(self, target: PublishTarget) -> BasicProperties:
        """Made once for all messages to a target: pika writes them out before `basic_publish` returns."""
        if self._properties[0] is not target:
            known = {name: value for name, value in target.properties.items() if name in _PROPERTIES}
            self._properties = (target, BasicProperties(**known))
        return self._properties[1]


def _settle(confirmed: asyncio.Future[None], error: EndpointError | None) -> None:
    if confirmed.done():
        return
    if error is None:
        confirmed.set_result(None)
    else:
        confirmed.set_exception(error)
