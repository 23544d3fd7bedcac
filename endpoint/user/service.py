"""A user endpoint at work: tasks from the broker to the engine, results from the engine to the broker.

One asyncio loop does everything; it waits in one place (`run`). The engine's threads only leave a note with
`call_soon_threadsafe`, so a result is on its way to the broker as soon as it is there. What happens to a task is
decided by the table in `tasks.py`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint.amqp.consumer import Consumer, Delivery
from endpoint.amqp.link import Link
from endpoint.config.model import UserConfig
from endpoint.engines.base import Engine, EngineTask
from endpoint.errors import EndpointError, ExitStatus, FunctionNotAllowed, TaskLost
from endpoint.user.document import Credentials
from endpoint.user.idle import IdleWatch
from endpoint.user.parent import watch_parent
from endpoint.user.tasks import Action, Event, TaskTable
from endpoint.wire.codec import encode
from endpoint.wire.headers import HeadersRefused, TaskHeaders
from endpoint.wire.messages import StatusReport
from endpoint.wire.queues import QueueInfo
from endpoint.wire.results import error_result

log = logging.getLogger(__name__)

SMALLEST_HEARTBEAT_S = 5.0
PREFETCH_MARGIN = 16
LARGEST_PREFETCH = 65_535
REPUBLISH_S = 2.0  # how long a result waits that the broker could not keep
DRAIN_S = 5.0  # how long tasks that run may go on after a polite stop; a manager kills after 10
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

    allowed_functions: ids of the functions that may run; None for all.
    facts: what heartbeats say beside the engine's figures.
    """

    def __init__(
        self,
        config: UserConfig,
        credentials: Credentials,
        engine: Engine,
        *,
        allowed_functions: Collection[str] | None,
        facts: Mapping[str, Any],
        run_dir: Path,
    ) -> None:
        self._engine = engine
        self._credentials = credentials
        self._endpoint_id = credentials.now().endpoint_id
        self._allowed = None if allowed_functions is None else {function.lower() for function in allowed_functions}
        self._facts = facts
        self._run_dir = run_dir
        self._period_s = max(SMALLEST_HEARTBEAT_S, config.heartbeat_period)
        self._idle = IdleWatch(config.idle_heartbeats_soft, config.idle_heartbeats_hard)
        self._table = TaskTable()
        self._deliveries: dict[str, Delivery] = {}
        self._settled = asyncio.Event()
        self._stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._signals = 0
        self._ending = False

    async def run(self) -> ExitStatus:
        """Work until told to stop, idle, orphaned, or unable to go on; returns how it ended. Raises EndpointError."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        unwatch = watch_parent(self._facts.get("posix_ppid"), lambda: self.stop(Stop("the manager is gone")))
        try:
            await self._start_engine()
            self._connect()
            await self._open_links()
            watches = [asyncio.create_task(self._watch(link)) for link in self._links]
            log.info("Waiting for tasks", extra={"user_endpoint": self._endpoint_id})
            self._next_beat: asyncio.Handle = loop.call_soon(self._beat)
            stop = await self._stop
            self._next_beat.cancel()
            for watch in watches:
                watch.cancel()
            await self._wind_down(stop)
        finally:
            unwatch()
            await asyncio.to_thread(self._engine.shutdown)
        if stop.error:
            raise stop.error
        return stop.status

    def stop(self, stop: Stop) -> None:
        """Ask the endpoint to end; the first reason counts."""
        if not self._stop.done():
            log.info("Stopping: %s", stop.reason, extra={"user_endpoint": self._endpoint_id})
            self._stop.set_result(stop)

    # -- beginning ---------------------------------------------------------------------------------------------------

    async def _start_engine(self) -> None:
        loop = asyncio.get_running_loop()

        def on_failure(error: EndpointError) -> None:
            loop.call_soon_threadsafe(self.stop, Stop(str(error), error))

        await asyncio.to_thread(
            self._engine.start, endpoint_id=self._endpoint_id, run_dir=self._run_dir, on_failure=on_failure
        )

    def _connect(self) -> None:
        """Links to the broker: one for each address, which is usually one in all."""
        now = self._credentials.now()
        links: dict[str, Link] = {}

        def link_for(queue: Callable[[], QueueInfo]) -> Link:
            url = queue().connection_url
            if url not in links:
                links[url] = Link(f"of {self._endpoint_id}", lambda: queue().connection_url)
            return links[url]

        self._results = link_for(lambda: self._credentials.now().result).publisher()
        self._heartbeats = link_for(lambda: self._credentials.now().heartbeat).publisher()
        prefetch = min(2 * self._engine.capacity + PREFETCH_MARGIN, LARGEST_PREFETCH)
        self._consumer: Consumer = link_for(lambda: self._credentials.now().task).consume(
            now.task.queue, self._on_delivery, prefetch=prefetch, exclusive=True
        )
        self._links = list(links.values())

    async def _open_links(self) -> None:
        """Connect; raises why it can't be done. A stop that comes meanwhile (the broker may be away) ends the wait."""
        opening = asyncio.gather(*(link.open() for link in self._links))
        await asyncio.wait((opening, self._stop), return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
        else:
            opening.cancel()

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
            self._settled.set()  # the second one says: now
        self.stop(Stop(f"{signal.Signals(number).name} received"))

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            headers = TaskHeaders.parse(delivery.headers)
        except HeadersRefused as error:
            if error.task_id is None:
                told = error.failure.for_admin()
                log.error("A message without a readable task id is dropped: %s", told, extra=error.failure.fields)
                delivery.reject()
            elif self._arrive(error.task_id, delivery):
                self._refuse(error.task_id, error)
            return
        if self._arrive(headers.task_id, delivery):
            self._submit(headers, delivery.body)

    def _arrive(self, task_id: str, delivery: Delivery) -> bool:
        """Note a delivery; whether its task is new here."""
        actions = self._table.happened(task_id, Event.ARRIVED)
        self._deliveries[task_id] = delivery
        self._settled.clear()
        if Action.ACK in actions:
            self._settle(task_id)
        return Action.SUBMIT in actions

    def _submit(self, headers: TaskHeaders, body: bytes) -> None:
        task_id = headers.task_id
        if self._allowed is not None and headers.function_id not in self._allowed:
            text = f"Function {headers.function_id} not permitted on endpoint {self._endpoint_id}"
            self._refuse(task_id, FunctionNotAllowed(text))
            return
        task = EngineTask(
            task_id, headers.function_id, body, headers.resource_specification, tuple(headers.result_serializers)
        )
        try:
            future = self._engine.submit(task)
        except EndpointError as error:
            self._refuse(task_id, error)
            return
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda done: self._from_engine(loop, task_id, done))

    def _refuse(self, task_id: str, error: EndpointError) -> None:
        log.warning("Task refused: %s", error, extra={"task": task_id, **error.failure.fields})
        self._table.happened(task_id, Event.REFUSED)
        self._publish(task_id, self._error_body(task_id, error))

    def _from_engine(self, loop: asyncio.AbstractEventLoop, task_id: str, done: Future[bytes]) -> None:
        """Runs in a thread of the engine's."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._on_result, task_id, done)

    def _on_result(self, task_id: str, done: Future[bytes]) -> None:
        if done.cancelled():  # only our own shutdown does that; the broker still has the task
            return
        error = done.exception()
        if error is None:
            body = done.result()
        elif isinstance(error, EndpointError):
            log.warning("Task failed: %s", error, extra={"task": task_id, **error.failure.fields})
            body = self._error_body(task_id, error)
        else:
            log.error("Task failed in the engine", exc_info=error, extra={"task": task_id})
            body = self._error_body(task_id, TaskLost(f"The engine lost the task: {type(error).__name__}: {error}"))
        self._table.happened(task_id, Event.RESULT)
        self._publish(task_id, body)

    def _publish(self, task_id: str, body: bytes) -> None:
        target = self._credentials.now().result.publish
        assert target is not None
        confirmed = self._results.publish_to(target, body)
        confirmed.add_done_callback(lambda done: self._on_published(task_id, body, done))

    def _on_published(self, task_id: str, body: bytes, done: asyncio.Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is None:
            self._table.happened(task_id, Event.CONFIRMED)
            self._settle(task_id)
        elif not self._ending:  # else the link is closed, and the broker has the task still
            log.error("A result is not published: %s; trying again", error, extra={"task": task_id})
            self._table.happened(task_id, Event.UNPUBLISHED)
            asyncio.get_running_loop().call_later(REPUBLISH_S, self._publish, task_id, body)

    def _settle(self, task_id: str) -> None:
        self._deliveries.pop(task_id).ack()
        if not self._table:
            self._settled.set()

    def _error_body(self, task_id: str, error: EndpointError) -> bytes:
        return encode(error_result(task_id, error.failure, endpoint_id=self._endpoint_id))

    # -- heartbeats --------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        # First of all the next one: whatever goes wrong with this one must not be the end of them.
        self._next_beat = asyncio.get_running_loop().call_later(self._period_s, self._beat)
        self._send_heartbeat(active=True)
        why = self._idle.heartbeat(received=self._table.received, answered=self._table.answered)
        if why:
            self.stop(Stop(why))

    def _send_heartbeat(self, *, active: bool) -> asyncio.Future[None]:
        state = {**self._engine.status(), **self._facts, "heartbeat_period": self._period_s, "active": active}
        target = self._credentials.now().heartbeat.publish
        assert target is not None
        return self._heartbeats.publish_to(target, encode(StatusReport(self._endpoint_id, state, {})))

    # -- end ---------------------------------------------------------------------------------------------------------

    async def _wind_down(self, stop: Stop) -> None:
        """Take nothing new, let what runs end for a moment, say goodbye; the rest stays in the queue."""
        await _at_most(GOODBYE_S, self._consumer.cancel())
        if self._table and stop.error is None:
            log.info("%d tasks have %.0f s to end", len(self._table), DRAIN_S)
            await _at_most(DRAIN_S, self._settled.wait())
        await _at_most(GOODBYE_S, self._results.drain())
        self._send_heartbeat(active=False)
        await _at_most(GOODBYE_S, self._heartbeats.drain())
        if self._table:
            log.warning("%d tasks go back to the queue for the next start", len(self._table))
        self._ending = True
        await asyncio.gather(*(_at_most(GOODBYE_S, link.close()) for link in self._links))


async def _at_most(seconds: float, awaited: Any) -> None:
    """Wait, but not for ever: at the end of a process nothing may hang."""
    try:
        await asyncio.wait_for(awaited, seconds)
    except asyncio.TimeoutError:
        log.warning("Gave up waiting after %.0f s", seconds)
