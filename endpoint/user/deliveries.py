"""The deliveries that are still to be settled, each in exactly one way, and before a broker loses its patience."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from endpoint.user.spool import Spool

log = logging.getLogger(__name__)

KEEP_AGAIN_S = 60.0  # until the next try to keep a task for which the disk had no space


class Settled(Protocol):
    """A delivery of the broker's, or a task in the spool.

    kept: whether the disk has it, and the broker no longer.
    """

    kept: bool
    headers: dict[str, Any]
    body: bytes

    def ack(self) -> None: ...

    def reject(self, *, requeue: bool = False) -> None: ...


@dataclass
class _Held:
    delivery: Settled
    due: float  # on the loop's clock


class Deliveries:
    """By the task's id.

    patience_s: how old a delivery of the broker's may get before `on_overdue` is called with its task's id.
    """

    def __init__(self, spool: Spool, patience_s: float, on_overdue: Callable[[str], None]) -> None:
        self._spool = spool
        self._patience_s = patience_s
        self._on_overdue = on_overdue
        self._held: dict[str, _Held] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._keeping: set[asyncio.Future[None]] = set()  # asyncio itself holds on to no task

    def kept(self) -> Iterator[Settled]:
        """The tasks that earlier processes have left on the disk, the oldest first."""
        return self._spool.tasks()

    def adopt(self, task_id: str, delivery: Settled) -> None:
        """Settle this one later. What the spool has stays there, and the broker may forget its own."""
        held = self._held.pop(task_id, None)
        if held is not None and held.delivery.kept:
            self._held[task_id] = held
            delivery.ack()
            return
        self._held[task_id] = _Held(delivery, asyncio.get_running_loop().time() + self._patience_s)
        self._set_timer()

    def ack(self, task_id: str) -> None:
        """The task is answered."""
        if held := self._held.pop(task_id, None):
            held.delivery.ack()

    def requeue(self, task_id: str) -> None:
        """The broker, or the next process, shall have the task."""
        if held := self._held.pop(task_id, None):
            held.delivery.reject(requeue=True)

    def disown(self, task_id: str) -> None:
        """The connection broke: the broker delivers the task again."""
        held = self._held.get(task_id)
        if held is not None and not held.delivery.kept:
            del self._held[task_id]

    def keep_soon(self, task_id: str) -> None:
        """`keep`, beside what else there is to do."""
        keeping = asyncio.ensure_future(self.keep(task_id))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)

    async def keep(self, task_id: str) -> None:
        """Write the task to the disk whole, then acknowledge it. Where the disk is full the broker keeps it."""
        held = self._held.get(task_id)
        if held is None or held.delivery.kept:
            return
        delivery = held.delivery
        try:
            kept = await asyncio.to_thread(self._spool.keep, task_id, delivery.headers, delivery.body)
        except OSError as error:
            log.error("A task can't be kept: %s; the broker has it still", error.strerror, extra={"task": task_id})
            held.due = asyncio.get_running_loop().time() + KEEP_AGAIN_S
            self._set_timer()
            return
        if self._held.get(task_id) is not held:  # it was answered, or came again, in the meantime
            kept.ack()
            return
        held.delivery = kept
        delivery.ack()
        log.info("A task is kept on the disk, and acknowledged", extra={"task": task_id})

    def close(self) -> None:
        """No more deadlines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            due = min((held.due for held in self._held.values() if not held.delivery.kept), default=None)
            if due is not None:
                self._timer = loop.call_at(due, self._overdue)

    def _overdue(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for task_id, held in list(self._held.items()):
            if not held.delivery.kept and held.due <= now:
                held.due = now + self._patience_s
                self._on_overdue(task_id)
        self._set_timer()
