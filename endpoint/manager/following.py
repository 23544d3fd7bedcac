"""Commands that are being followed: beside each other, in order for each user endpoint, and not without number.

Whom a requester is mapped to may take a program of the site some seconds to tell. Nobody else waits for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

MOST = 1000


class Following:
    """Follows commands, each in a task of its own."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._last: dict[str, asyncio.Task[None]] = {}  # by user endpoint
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, name: str, work: Callable[[], Awaitable[None]]) -> bool:
        """Do `work` after what is being done for the user endpoint `name`; False when there is too much already."""
        if len(self._tasks) >= self._most:
            return False
        task = asyncio.create_task(self._after(self._last.get(name), work))
        self._last[name] = task
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._over(name, task))
        return True

    @staticmethod
    async def _after(former: asyncio.Task[None] | None, work: Callable[[], Awaitable[None]]) -> None:
        if former is not None:
            await asyncio.wait((former,))
        await work()

    def _over(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._last.get(name) is task:
            del self._last[name]

    async def settled(self, timeout_s: float) -> None:
        """Wait for what is being done, and give up what is not done in time."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
