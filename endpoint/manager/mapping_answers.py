"""Answers that are kept for a while, and asked for once by all who want the same one."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

MOST_KEPT = 1000

T = TypeVar("T")


class Answers(Generic[T]):
    """`keep_s`: how long an answer is kept, in seconds; 0: only for those who wait for it already."""

    def __init__(self, keep_s: Callable[[T], float], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._asked: dict[Hashable, asyncio.Task[T]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer for `key`, from `ask` where none is kept. One who gives up waiting disturbs no other."""
        until, answer = self._kept.get(key, (0.0, None))
        if answer is not None and until > self._clock():
            return answer
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(ask())
            task.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up all questions."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, key: Hashable, done: asyncio.Task[T]) -> None:
        self._asked.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        seconds = self._keep_s(done.result())
        if seconds > 0:
            self._kept[key] = (self._clock() + seconds, done.result())
            self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
