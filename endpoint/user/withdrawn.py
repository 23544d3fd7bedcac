"""Tasks that were cancelled before they came: a message that says so can overtake its task, or be there without it."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

log = logging.getLogger(__name__)

KEPT_S = 24 * 3600.0
KEPT = 20_000


class Withdrawn:
    """Remembers each for `seconds`, and the newest `most` of them. On the asyncio loop.

    on_forgotten: called with the id of a task that has not come in this time.
    """

    def __init__(self, on_forgotten: Callable[[str], object], *, seconds: float = KEPT_S, most: int = KEPT) -> None:
        self._on_forgotten = on_forgotten
        self._seconds = seconds
        self._most = most
        self._due: OrderedDict[str, float] = OrderedDict()  # on the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    def add(self, task_id: str) -> None:
        """It was cancelled."""
        self._due[task_id] = asyncio.get_running_loop().time() + self._seconds
        if len(self._due) > self._most:
            oldest = next(iter(self._due))
            log.warning("A cancellation is forgotten: %d newer ones wait for their tasks", self._most)
            self._forget(oldest)
        self._set_timer()

    def discard(self, task_id: str) -> None:
        """It has come."""
        self._due.pop(task_id, None)

    def close(self) -> None:
        """Forget nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget(self, task_id: str) -> None:
        del self._due[task_id]
        self._on_forgotten(task_id)

    def _set_timer(self) -> None:
        if self._timer is None and self._due:
            self._timer = asyncio.get_running_loop().call_at(next(iter(self._due.values())), self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._due and next(iter(self._due.values())) <= now:
            self._forget(next(iter(self._due)))
        self._set_timer()
