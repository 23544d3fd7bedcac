"""From an engine's threads to the loop: what is finished."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

_running_loop = asyncio._get_running_loop  # raises nothing where none runs


class Finished:
    """The engine's threads only leave a note; the loop is woken once for all that has finished by the time it looks.

    To be made on the loop. on_result: called there, with the task's id and its future, in the order of finishing.
    """

    def __init__(self, on_result: Callable[[str, Future[bytes]], None]) -> None:
        self._on_result = on_result
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[str, Future[bytes]]] = deque()
        self._woken = False

    def watch(self, task_id: str, future: Future[bytes]) -> None:
        """Hear of this one when it is done."""
        future.add_done_callback(lambda done: self._add(task_id, done))

    def take(self) -> None:
        """Hand on what is there."""
        self._woken = False  # first: what is added from here on wakes the loop again
        while self._waiting:
            self._on_result(*self._waiting.popleft())

    def _add(self, task_id: str, done: Future[bytes]) -> None:
        """Runs in any thread."""
        self._waiting.append((task_id, done))
        if self._woken or self._loop.is_closed():
            return
        self._woken = True
        if _running_loop() is self._loop:
            self._loop.call_soon(self.take)
        else:
            self._loop.call_soon_threadsafe(self.take)
