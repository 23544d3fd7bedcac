"""A pool of slots, each with a thread of its own that runs one task after the other.

The threads are daemons: a function that never returns can't hold back the end of the endpoint. They are made as they
are needed, up to `size`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from endpoint.engines.base import EngineTask
from endpoint.errors import NotBegun


class Slot(Protocol):
    """What runs tasks; made in the thread that uses it."""

    def run(self, task: EngineTask) -> bytes:
        """The result message's bytes."""

    def close(self) -> None:
        """End what the slot holds, also in the midst of a task. Called from another thread."""


class SlotPool:
    """At most `size` tasks at once, in the order of submission."""

    def __init__(self, name: str, size: int, make_slot: Callable[[], Slot], may_begin: Callable[[str], bool]) -> None:
        """`may_begin` is asked with a task's id just before it runs, in the thread that runs it."""
        self.size = size
        self._may_begin = may_begin
        self._name = name
        self._make_slot = make_slot
        self._queue: queue.SimpleQueue[tuple[Future[bytes], EngineTask] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._slots: list[Slot] = []
        self._closed = False
        self._waiting = 0
        self._busy = 0
        self._begun: dict[Future[bytes], float] = {}

    @property
    def waiting(self) -> int:
        """How many tasks no slot has begun."""
        return self._waiting

    @property
    def busy(self) -> int:
        """How many tasks run."""
        return self._busy

    def submit(self, task: EngineTask) -> Future[bytes]:
        """The future of one attempt; it can be cancelled until a slot takes it."""
        future: Future[bytes] = Future()
        with self._lock:
            if self._closed:
                future.cancel()
                return future
            self._waiting += 1
            self._queue.put((future, task))
            if self._waiting > len(self._threads) - self._busy and len(self._threads) < self.size:
                thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def cancel(self, future: Future[bytes]) -> bool:
        """Whether an attempt was cancelled before a slot has taken it."""
        if future.cancelled() or not future.cancel():
            return future.cancelled()
        with self._lock:
            self._waiting -= 1
        return True

    def seconds(self, future: Future[bytes]) -> float | None:
        """How long an attempt has run so far; None for one that doesn't."""
        begun = self._begun.get(future)
        return None if begun is None else time.monotonic() - begun

    def give_back(self) -> None:
        """Take nothing more; what waits fails with NotBegun, what runs goes on."""
        given: list[Future[bytes]] = []
        with self._lock:
            self._closed = True
            while not self._queue.empty():
                item = self._queue.get()
                if item is not None and item[0].set_running_or_notify_cancel():
                    given.append(item[0])
                    self._waiting -= 1
            for _ in self._threads:
                self._queue.put(None)
        for future in given:
            future.set_exception(NotBegun("The engine stops"))

    def close(self) -> None:
        """Take nothing more, and end the slots. Nobody can end a thread that runs somebody's function."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
            slots = list(self._slots)
        for slot in slots:
            slot.close()

    def _serve(self) -> None:
        slot = self._make_slot()
        with self._lock:
            self._slots.append(slot)
        while (item := self._queue.get()) is not None:
            future, task = item
            running = future.set_running_or_notify_cancel()
            with self._lock:
                if running:
                    self._waiting -= 1
                    self._busy += 1
                    self._begun[future] = time.monotonic()
            if running:
                self._run(slot, future, task)
            del item, future, task
        slot.close()

    def _run(self, slot: Slot, future: Future[bytes], task: EngineTask) -> None:
        """Run one task; the slot counts as free before the answer is out, so that a caller sees true figures."""
        result: bytes | None = None
        failure: BaseException | None = None
        try:
            if self._closed or not self._may_begin(task.task_id):
                raise NotBegun("The engine did not begin the task")
            result = slot.run(task)
        except BaseException as error:  # noqa: BLE001 - nothing is hidden: the future carries it
            failure = error
        with self._lock:
            self._busy -= 1
            del self._begun[future]
        if failure is not None:
            future.set_exception(failure)
        elif result is not None:
            future.set_result(result)
