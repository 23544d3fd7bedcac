"""A link: one connection to a broker that comes back by itself, with consumers and publishers on it.

The link lives on the running asyncio loop; nothing of it runs in a thread and nothing polls. Its life is one
coroutine, `_live`: connect, attach the roles, wait until the session is lost, wait a moment, again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from endpoint.amqp.consumer import Consumer, Delivery
from endpoint.amqp.publisher import Publisher
from endpoint.amqp.session import Session, connect
from endpoint.errors import AccessRefused, EndpointError, NetworkFailure, QueueInUse
from endpoint.wire.queues import QueueInfo

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 6.0
STABLE_S = 5.0  # a session that lasts less counts as a failed attempt: a refused message ends it at once
REFUSALS_BEFORE_GIVING_UP = 6  # about ten seconds
IN_USE_PATIENCE_S = 150.0  # a broker needs two heartbeats to notice that the connection of a lost host is dead


class Link:
    """One connection with its roles.

    name: for the log.
    url: where to connect; asked anew for each attempt, so that refreshed credentials are used.
    on_state: called with (True, None) when the link is up, and with (False, reason) when it is lost.
    patience_s: how long `open` tries before it gives up.
    refusals: after how many refusals in a row the link gives up, for its owner to get other credentials, say. The end
        of a session that has lasted a while is not one of them, even if the broker ended it.
    lasting: whether the link never gives up once it was up, and waits for a broker that is away as long as it takes.
    """

    def __init__(
        self,
        name: str,
        url: str | Callable[[], str],
        *,
        on_state: Callable[[bool, EndpointError | None], None] | None = None,
        patience_s: float = 30.0,
        refusals: int = REFUSALS_BEFORE_GIVING_UP,
        lasting: bool = False,
    ) -> None:
        self._name = name
        self._url: Callable[[], str] = (lambda: url) if isinstance(url, str) else url
        self._on_state = on_state or (lambda _up, _reason: None)
        self._patience_s = patience_s
        self._refusals = refusals
        self._lasting = lasting
        self._roles: list[Consumer | Publisher] = []
        self._closing = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._first_up: asyncio.Future[None] | None = None

    def consume(
        self,
        queue: str | Callable[[], str],
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int = 1,
        exclusive: bool = False,
    ) -> Consumer:
        """Add a consumer; to be called before `open`. `on_delivery` runs on the loop and must not block."""
        queue_name: Callable[[], str] = (lambda: queue) if isinstance(queue, str) else queue
        consumer = Consumer(queue_name, on_delivery, prefetch=prefetch, exclusive=exclusive)
        self._roles.append(consumer)
        return consumer

    def publisher(self) -> Publisher:
        """Add a publisher; to be called before `open`."""
        publisher = Publisher()
        self._roles.append(publisher)
        return publisher

    async def open(self) -> None:
        """Connect for the first time.

        Raises AccessRefused after so many refusals, and (not for a lasting link) NetworkFailure after `patience_s`.
        """
        self._first_up = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(), name=f"link {self._name}")
        await asyncio.wait((self._first_up, self._life), return_when=asyncio.FIRST_COMPLETED)
        if not self._first_up.done():
            await self._life

    async def closed(self) -> None:
        """Wait for the link's end; raises AccessRefused or NetworkFailure if it has failed for good."""
        if self._life is not None:
            await asyncio.shield(self._life)

    async def close(self) -> None:
        """Close for good. Unconfirmed messages fail; unsettled deliveries go back to the broker."""
        self._closing.set()
        if self._life is not None:
            await asyncio.wait((self._life,))

    async def _live(self) -> None:
        started = asyncio.get_running_loop().time()
        refusals = attempts = 0
        end: EndpointError = NetworkFailure(f"The link {self._name} is closed")
        try:
            while not self._closing.is_set():
                reason, was_stable = await self._one_session()
                if reason is None:
                    return
                attempts = 0 if was_stable else attempts + 1
                refusals = refusals + 1 if isinstance(reason, AccessRefused) and not was_stable else 0
                waited = asyncio.get_running_loop().time() - started
                if self._must_give_up(reason, refusals, waited):
                    end = reason
                    raise reason
                await self._pause(reason, attempts)
        finally:
            for role in self._roles:
                if isinstance(role, Publisher):
                    role.fail(end)

    def _must_give_up(self, reason: EndpointError, refusals: int, waited: float) -> bool:
        never_up = self._first_up is not None and not self._first_up.done()
        if self._lasting:
            in_use = isinstance(reason, QueueInUse) and waited >= IN_USE_PATIENCE_S
            return never_up and (refusals >= self._refusals or in_use)
        return refusals >= self._refusals or (never_up and waited >= self._patience_s)

    async def _one_session(self) -> tuple[EndpointError | None, bool]:
        """From connecting to the loss: (why it ended, or None for our own close; whether it was up for a while)."""
        session: Session | None = None
        try:
            session = await connect(self._url())
            for role in self._roles:
                await session.attach(role)
        except (AccessRefused, NetworkFailure) as error:
            await self._drop(session)
            return error, False
        self._came_up()
        up_since = asyncio.get_running_loop().time()
        closing = asyncio.create_task(self._closing.wait())
        await asyncio.wait((session.lost, closing), return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        await self._drop(session)
        if self._closing.is_set():
            return None, True
        reason = session.lost.result()
        self._on_state(False, reason)
        return reason, asyncio.get_running_loop().time() - up_since > STABLE_S

    def _came_up(self) -> None:
        log.info("Link %s is up", self._name)
        if self._first_up is not None and not self._first_up.done():
            self._first_up.set_result(None)
        self._on_state(True, None)

    async def _drop(self, session: Session | None) -> None:
        for role in self._roles:
            role.detach()
        if session is not None:
            await session.close()

    async def _pause(self, reason: EndpointError, attempts: int) -> None:
        longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**attempts)
        delay = random.uniform(longest / 2, longest)  # noqa: S311 - jitter, so that many endpoints don't return at once
        log.warning("Link %s: %s; connecting again in %.1f s", self._name, reason, delay)
        try:
            await asyncio.wait_for(self._closing.wait(), delay)
        except asyncio.TimeoutError:
            return


async def publish_once(queue_info: QueueInfo, body: bytes, timeout: float = 10.0) -> None:
    """Connect, publish one message to a queue of a registration answer, wait for its confirmation, close.

    Raises AccessRefused, NetworkFailure or PublishRefused.
    """
    if queue_info.publish is None:
        raise AccessRefused(f"Nothing may be published to the queue {queue_info.queue}")
    link = Link("one message", queue_info.connection_url, patience_s=timeout)
    publisher = link.publisher()
    try:
        await asyncio.wait_for(link.open(), timeout)
        await asyncio.wait_for(publisher.publish_to(queue_info.publish, body), timeout)
    except asyncio.TimeoutError as error:
        raise NetworkFailure(f"The broker did not confirm a message within {timeout:g} s") from error
    finally:
        await link.close()
