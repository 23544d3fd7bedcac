"""The engine of a user endpoint: started, asked, replaced when it breaks, and ended."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from endpoint.engines.base import Engine, EngineTask, Starts
from endpoint.errors import EndpointError, EngineGone
from endpoint.user.condition import Condition

log = logging.getLogger(__name__)

RESTARTS, WITHIN_S = 3, 600.0  # an engine that breaks more often won't be mended by another start


class EngineRoom:
    """Has one engine at a time.

    make_engine: builds it, also when it has to be replaced.
    starts: told of each task that begins.
    on_ready: called when it can take tasks, for the first time or again.
    on_gone: called when it has broken and nothing of it is left, before the next one is built.
    on_broken: told, once, when no engine can go on.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        *,
        endpoint_id: str,
        run_dir: Path,
        starts: Starts,
        condition: Condition,
        on_ready: Callable[[], None],
        on_gone: Callable[[], None],
        on_broken: Callable[[EndpointError], None],
    ) -> None:
        """Raises ConfigError."""
        self._make_engine = make_engine
        self._endpoint_id = endpoint_id
        self._run_dir = run_dir
        self._starts = starts
        self._condition = condition
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._engine = make_engine()
        self._restarted: deque[float] = deque(maxlen=RESTARTS)
        self._mending: asyncio.Task[None] | None = None
        self._ending = False
        self.ready = False

    @property
    def capacity(self) -> int:
        """How many tasks the engine can run at once."""
        return self._engine.capacity

    @property
    def retries(self) -> int:
        """How often a task may run again that was lost with what ran it."""
        return self._engine.options.max_retries_on_system_failure

    def status(self) -> dict[str, Any]:
        """The engine's part of a heartbeat."""
        return self._engine.status()

    def job_of(self, block: str) -> str | None:
        """See `Engine.job_of`."""
        return self._engine.job_of(block)

    def submit(self, task: EngineTask) -> Future[bytes]:
        """See `Engine.submit`."""
        return self._engine.submit(task)

    def cancel(self, task_id: str) -> None:
        """See `Engine.cancel`."""
        self._engine.cancel(task_id)

    async def start(self) -> None:
        """Make the engine ready. Raises EngineFailure, ConfigError."""

        def on_failure(error: EndpointError) -> None:
            self._loop.call_soon_threadsafe(self._failed, error)

        def on_blocked(error: EndpointError | None) -> None:
            self._loop.call_soon_threadsafe(self._condition.engine, "blocked" if error else "running", error)

        self._engine.on_blocked = on_blocked
        start = functools.partial(
            self._engine.start,
            endpoint_id=self._endpoint_id,
            run_dir=self._run_dir,
            on_failure=on_failure,
            starts=self._starts,
            loop=self._loop,
        )
        if self._engine.quick_start:
            start()
        else:
            await asyncio.to_thread(start)
        self.ready = True
        self._condition.engine("running")
        self._on_ready()

    def stop_starting(self) -> None:
        """The endpoint ends: begin nothing more, and replace nothing."""
        self._ending = True
        if self.ready:
            self._engine.stop_starting()

    async def end(self) -> None:
        """End the engine and all that it has started; a second call does nothing."""
        self._ending = True
        if self._mending is not None and not self._mending.done():
            await asyncio.wait((self._mending,))
        self.ready = False
        await asyncio.to_thread(self._engine.shutdown)

    def _failed(self, error: EndpointError) -> None:
        now = self._loop.time()
        often = len(self._restarted) == RESTARTS and now - self._restarted[0] < WITHIN_S
        if not isinstance(error, EngineGone) or often or self._ending:
            self._on_broken(error)
            return
        self._restarted.append(now)
        self._mending = asyncio.create_task(self._replace(error))

    async def _replace(self, error: EndpointError) -> None:
        log.error("The engine is started again: %s", error)
        self.ready = False
        self._condition.engine("restarting", error)
        try:
            await asyncio.to_thread(self._engine.shutdown)
            self._on_gone()
            self._engine = self._make_engine()
            await self.start()
        except EndpointError as failure:
            self._on_broken(failure)
