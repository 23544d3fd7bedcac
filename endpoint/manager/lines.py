"""The manager's two links to the broker: commands in, heartbeats out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from endpoint.amqp.consumer import Delivery
from endpoint.amqp.link import Link
from endpoint.errors import EndpointError, UnexpectedAnswer
from endpoint.wire.codec import encode
from endpoint.wire.messages import StatusReport
from endpoint.wire.queues import Registration

log = logging.getLogger(__name__)

SHUTTING_DOWN = 0
COMMANDS_AT_ONCE = 16
PATIENCE_S = 15.0  # at the start, when somebody watches
REFUSALS = 1  # the service knows better than a second try: it has other credentials, or has shut us out


class Lines:
    """The links of one registration; the answer may give them different credentials."""

    def __init__(self, registration: Registration, on_command: Callable[[Delivery], None]) -> None:
        heartbeat, command = registration.heartbeat, registration.command
        if command is None or heartbeat.publish is None:
            raise UnexpectedAnswer("The registration lacks the queues that a manager needs")
        self._endpoint_id = registration.endpoint_id
        self._target = heartbeat.publish
        self._commands = Link("commands", command.connection_url, patience_s=PATIENCE_S, refusals=REFUSALS)
        self._commands.consume(command.queue, on_command, prefetch=COMMANDS_AT_ONCE)
        self._up = False
        self._heartbeats = Link(
            "heartbeats",
            heartbeat.connection_url,
            patience_s=PATIENCE_S,
            refusals=REFUSALS,
            on_state=self._on_heartbeat_state,
        )
        self._publisher = self._heartbeats.publisher()

    def _on_heartbeat_state(self, up: bool, _reason: EndpointError | None) -> None:
        self._up = up

    async def open(self) -> None:
        """Connect both; raises AccessRefused or NetworkFailure."""
        await self._heartbeats.open()
        await self._commands.open()

    async def failed(self) -> None:
        """Wait until one of the links is gone for good; raises AccessRefused or NetworkFailure."""
        ends = [asyncio.create_task(link.closed()) for link in (self._commands, self._heartbeats)]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            for end in ends:
                end.cancel()

    async def heartbeat(self, period_s: float, *, timeout_s: float) -> bool:
        """Say that the manager is there, for `period_s` at least; whether the broker has confirmed it in time.

        While the broker is away one heartbeat waits for it; older news is not worth sending. Raises PublishRefused
        when the broker is there and has no place for it.
        """
        return False if self._publisher.pending else await self._report(period_s, timeout_s)

    async def goodbye(self, *, timeout_s: float) -> bool:
        """Say that the manager shuts down now, if the broker is there; whether it has confirmed it in time."""
        try:
            return self._up and await self._report(SHUTTING_DOWN, timeout_s)
        except EndpointError:
            return False

    async def _report(self, period_s: float, timeout_s: float) -> bool:
        report = StatusReport(
            endpoint_id=self._endpoint_id, global_state={"heartbeat_period": period_s}, task_statuses={}
        )
        confirmed = self._publisher.publish_to(self._target, encode(report))
        confirmed.add_done_callback(_log_failure)
        done, _ = await asyncio.wait((confirmed,), timeout=timeout_s)
        if done:
            confirmed.result()
        return bool(done)

    async def stop_commands(self) -> None:
        """Take no more commands; those that wait stay in their queue."""
        await self._commands.close()

    async def close(self) -> None:
        """Close both links."""
        await self._commands.close()
        await self._heartbeats.close()


def _log_failure(confirmed: asyncio.Future[None]) -> None:
    error = None if confirmed.cancelled() else confirmed.exception()
    if isinstance(error, EndpointError):
        log.warning("A heartbeat could not be sent: %s", error.failure.for_admin())
