"""Cancellations on their way from an engine on Parsl's workers to its interchange."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from parsl.executors.high_throughput.errors import CommandClientBadError, CommandClientTimeoutError

from endpoint.engines.cancel_names import CANCEL_TASKS, Stopped
from endpoint.engines.cancelled import before_it_began, goes_on, stopped
from endpoint.errors import TaskCancelled

log = logging.getLogger(__name__)

WHY_NOT = "its pool of workers, started by a command of the administrator's own, can't stop it"


class HtexCancel:
    """Sends those of a moment with one command; asking the interchange takes its time, so a thread does it.

    tell: sends a command to the interchange; returns its answer. on_unstoppable: called with a task's id, and what its
    owner is told.
    """

    def __init__(
        self,
        tell: Callable[[Any], Any],
        grace: float,
        on_unstoppable: Callable[[str, TaskCancelled], None],
    ) -> None:
        self._tell = tell
        self._grace = grace
        self._on_unstoppable = on_unstoppable
        self._queue: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def cancel(self, task_id: str, attempt: Future[bytes]) -> None:
        """Have an attempt, of which Parsl knows by a number of its own, stopped."""
        self._queue.put((attempt.parsl_executor_task_id, task_id))  # type: ignore[attr-defined]
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cancel", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Nothing more is sent."""
        self._queue.put(None)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            tasks = dict([first])
            with suppress(queue.Empty):
                while (more := self._queue.get_nowait()) is not None:
                    tasks |= [more]
                return
            try:
                can_not: list[int] = self._tell((CANCEL_TASKS, list(tasks), self._grace)) or []
            except (CommandClientTimeoutError, CommandClientBadError):
                log.warning("The interchange doesn't answer; %d cancellations are not told to it", len(tasks))
                continue  # whoever looks after the interchange ends the engine, and with it all of its tasks
            except Exception:
                log.exception("%d cancellations can't be told to the interchange", len(tasks))
                continue
            for number in can_not:
                self._on_unstoppable(tasks[number], goes_on(None, WHY_NOT))


def told(failure: Stopped) -> TaskCancelled:
    """What the task's owner is told."""
    return before_it_began() if failure.seconds is None else stopped(failure.seconds, failure.grace)
