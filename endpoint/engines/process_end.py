"""How a worker process is ended in the midst of a task that nobody wants any more: first asked, then made."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from endpoint.engines.cancelled import stopped
from endpoint.engines.process_link import Attempt, WorkerProcess
from endpoint.engines.tree import Tree
from endpoint.errors import TaskCancelled

LOOK_S = 0.02  # between looks whether all have ended that were asked to


class Ending:
    """One process on its way out. It keeps its place in the pool until all that its task has started is gone.

    on_over: called when nothing of it is left but what has yet to be reaped.
    """

    def __init__(
        self,
        process: WorkerProcess,
        attempt: Attempt,
        *,
        grace: float,
        loop: asyncio.AbstractEventLoop,
        on_over: Callable[[], None],
    ) -> None:
        self.attempt = attempt
        self.over = False
        self._grace = grace
        self._loop = loop
        self._on_over = on_over
        self._ran = time.monotonic() - process.moved
        self._killed = False
        self._tree = Tree(process.pid, session=True)
        self._deadline = loop.time() + grace
        if grace > 0:
            self._tree.signal(signal.SIGTERM)
        self._timer: asyncio.Handle = loop.call_soon(self._look)

    @property
    def outcome(self) -> TaskCancelled:
        """What the task's owner is told."""
        return stopped(self._ran, self._grace if self._killed else None)

    def hurry(self) -> None:
        """Wait no longer."""
        self._deadline = self._loop.time()

    def drop(self) -> None:
        """The process leaves the pool: wait for nothing, and leave nothing."""
        self._timer.cancel()
        if not self.over:
            self._tree.kill()

    def _look(self) -> None:
        runs = self._tree.runs
        if runs and self._loop.time() < self._deadline:
            self._timer = self._loop.call_later(LOOK_S, self._look)
            return
        self._killed = runs
        self._tree.kill()
        self.over = True
        self._on_over()
