"""A user endpoint at work: tasks from the broker to the engine, results from the engine to the broker.

One asyncio loop does everything; it waits in one place (`run`). The engine's threads only leave a note with
`call_soon_threadsafe`, so a result is on its way to the broker as soon as it is there. What happens to a task is
decided by the table in `tasks.py`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint.amqp.consumer import Consumer
from endpoint.amqp.link import Link
from endpoint.config.model import UserConfig
from endpoint.engines.base import Engine
from endpoint.engines.memory import give_back_freed_memory
from endpoint.errors import EndpointError, ExitStatus
from endpoint.user.condition import Condition
from endpoint.user.document import Credentials
from endpoint.user.hooks import TaskHook
from endpoint.user.idle import IdleWatch
from endpoint.user.parent import watch_parent
from endpoint.user.work import Work
from endpoint.wire.codec import encode
from endpoint.wire.messages import StatusReport
from endpoint.wire.queues import QueueInfo

log = logging.getLogger(__name__)

SMALLEST_HEARTBEAT_S = 5.0
PREFETCH_MARGIN = 16
CANCELS_AT_ONCE = 1000
SETTLED_S = 1.0  # after the start
LARGEST_PREFETCH = 65_535
GOODBYE_S = 3.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)


@dataclass(frozen=True)
class Stop:
    """Why the endpoint ends: a sentence, the error if it is one."""

    reason: str
    error: EndpointError | None = None

    @property
    def status(self) -> ExitStatus:
        return self.error.exit_status if self.error else ExitStatus.OK


class UserEndpoint:
    """One user endpoint, from start to stop.

    make_engine: builds the engine that the configuration describes; nothing is started by that.
    allowed_functions: ids of the functions that may run; None for all.
    facts: what heartbeats say beside the engine's figures.
    hook: hears of what happens to tasks.
    """

    def __init__(
        self,
        config: UserConfig,
        credentials: Credentials,
        make_engine: Callable[[], Engine],
        *,
        allowed_functions: Collection[str] | None,
        facts: Mapping[str, Any],
        run_dir: Path,
        hook: TaskHook | None = None,
    ) -> None:
        """Raises ConfigError."""
        self._credentials = credentials
        self._endpoint_id = credentials.now().endpoint_id
        self._facts = facts
        self._period_s = max(SMALLEST_HEARTBEAT_S, config.heartbeat_period)
        self._grace_s = config.shutdown_grace
        self._idle = IdleWatch(config.idle_heartbeats_soft, config.idle_heartbeats_hard)
        self._condition = Condition(run_dir)
        self._hook = hook or TaskHook()
        self._work = Work(
            make_engine,
            endpoint_id=self._endpoint_id,
            run_dir=run_dir,
            allowed_functions=allowed_functions,
            ack_deadline_s=config.ack_deadline,
            publish=self._publish,
            on_broken=lambda error: self.stop(Stop(str(error), error)),
            condition=self._condition,
            hook=self._hook,
        )
        self._stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._signals = 0

    async def run(self) -> ExitStatus:
        """Work until told to stop, idle, orphaned, or unable to go on; returns how it ended. Raises EndpointError."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        unwatch = watch_parent(self._facts.get("posix_ppid"), lambda: self.stop(Stop("the manager is gone")))
        try:
            self._connect()
            self._work.recover()
            await self._begin()
            gc.freeze()  # what is here now stays: it need not be looked through for garbage again and again
            watches = [asyncio.create_task(self._watch(link)) for link in self._links]
            log.info("Waiting for tasks", extra={"user_endpoint": self._endpoint_id})
            self._next_beat: asyncio.Handle = loop.call_soon(self._beat)
            loop.call_later(SETTLED_S, self._rest)
            stop = await self._stop
            self._next_beat.cancel()
            for watch in watches:
                watch.cancel()
            await self._wind_down(stop)
        finally:
            unwatch()
            await self._work.end_engine()
            self._work.close()
            self._hook.close()
        if stop.error:
            raise stop.error
        self._condition.ended()
        return stop.status

    def stop(self, stop: Stop) -> None:
        """Ask the endpoint to end; the first reason counts."""
        if not self._stop.done():
            log.info("Stopping: %s", stop.reason, extra={"user_endpoint": self._endpoint_id})
            self._stop.set_result(stop)

    # -- beginning ---------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Links to the broker: one for each address, which is usually one in all."""
        now = self._credentials.now()
        links: dict[str, Link] = {}

        def link_for(queue: Callable[[], QueueInfo], **options: Any) -> Link:
            url = queue().connection_url
            if url not in links:
                links[url] = Link(f"of {self._endpoint_id}", lambda: queue().connection_url, lasting=True, **options)
            return links[url]

        tasks = link_for(lambda: self._credentials.now().task, on_state=self._on_link)
        prefetch = min(2 * self._work.capacity + PREFETCH_MARGIN, LARGEST_PREFETCH)
        self._consumers: list[Consumer] = []
        if cancels := now.task.cancel_queue:  # first: what was cancelled while nobody was here shall not begin
            self._consumers.append(
                tasks.consume(cancels, self._work.on_delivery, prefetch=CANCELS_AT_ONCE, exclusive=True)
            )
        self._consumers.append(tasks.consume(now.task.queue, self._work.on_delivery, prefetch=prefetch, exclusive=True))
        self._results = link_for(lambda: self._credentials.now().result).publisher()
        self._heartbeats = link_for(lambda: self._credentials.now().heartbeat).publisher()
        self._links = list(links.values())

    async def _begin(self) -> None:
        """Connect and start the engine, both at once; raises why one can't be done. A stop ends the wait."""
        opening = asyncio.gather(self._work.start_engine(), *(link.open() for link in self._links))
        await asyncio.wait((opening, self._stop), return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            return
        opening.cancel()
        await asyncio.wait((opening,))
        if not opening.cancelled():
            opening.exception()  # it is of no interest any more, and asyncio wants it looked at

    def _on_link(self, up: bool, reason: EndpointError | None) -> None:
        self._condition.broker(up, reason)
        if not up:
            self._work.broker_gone()

    async def _watch(self, link: Link) -> None:
        try:
            await link.closed()
        except EndpointError as error:
            self.stop(Stop(str(error), error))
        except Exception as error:  # a mistake of ours must not leave an endpoint that looks well and hears nothing
            log.exception("The link to the broker ended in a way that nobody foresaw")
            self.stop(Stop("the link is broken", EndpointError(f"The link to the broker broke: {error!r}")))

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1:
            self._work.hurry()  # the second one says: now
        self.stop(Stop(f"{signal.Signals(number).name} received"))

    def _publish(self, body: bytes, on_done: Callable[[EndpointError | None], None]) -> None:
        target = self._credentials.now().result.publish
        assert target is not None
        self._results.send(target, body, on_done)

    # -- heartbeats --------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        # First of all the next one: whatever goes wrong with this one must not be the end of them.
        self._next_beat = asyncio.get_running_loop().call_later(self._period_s, self._beat)
        self._send_heartbeat(active=True)
        why = self._idle.heartbeat(received=self._work.received, answered=self._work.answered)
        if why:
            self.stop(Stop(why))
        self._rest()

    def _rest(self) -> None:
        """What the start, or the last tasks, have left in memory is for others while there is nothing to do."""
        if self._work.open == 0:
            give_back_freed_memory()

    def _send_heartbeat(self, *, active: bool) -> asyncio.Future[None]:
        state = {**self._engine_status(), **self._facts, "heartbeat_period": self._period_s, "active": active}
        target = self._credentials.now().heartbeat.publish
        assert target is not None
        return self._heartbeats.publish_to(target, encode(StatusReport(self._endpoint_id, state, {})))

    def _engine_status(self) -> dict[str, Any]:
        try:
            return self._work.engine_status()
        except Exception:  # figures that can't be had must not make the service think that nobody is here
            log.exception("The engine can't say how it does")
            return {}

    # -- end ---------------------------------------------------------------------------------------------------------

    async def _wind_down(self, stop: Stop) -> None:
        """Hand back what has not begun, let what runs end for a while, tell of what did not, say goodbye."""
        await _at_most(GOODBYE_S, asyncio.gather(*(consumer.cancel() for consumer in self._consumers)))
        self._work.stop_starting()
        if self._work.open and stop.error is None:
            log.info("%d tasks have %.0f s to end", self._work.open, self._grace_s)
            await _at_most(self._grace_s, self._work.settled())
        await self._work.end_engine()
        await _at_most(GOODBYE_S, self._results.drain())
        self._send_heartbeat(active=False)
        await _at_most(GOODBYE_S, self._heartbeats.drain())
        self._work.close()
        await asyncio.gather(*(_at_most(GOODBYE_S, link.close()) for link in self._links))


async def _at_most(seconds: float, awaited: Any) -> None:
    """Wait, but not for ever: at the end of a process nothing may hang."""
    try:
        await asyncio.wait_for(awaited, seconds)
    except asyncio.TimeoutError:
        log.warning("Gave up waiting after %.0f s", seconds)
