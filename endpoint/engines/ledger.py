"""The tasks that an engine owes an answer for.

Every task gets exactly one answer: its result, or an error of ours. A task that was lost is run again as often as the
configuration allows; when the engine can't go on, everything that is still owed is answered with the reason; when the
endpoint stops, the answers are cancelled (the broker still has those tasks).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from endpoint.engines.base import EngineTask
from endpoint.errors import EndpointError, NotBegun, TaskRefused

Launch = Callable[[EngineTask], "Future[bytes]"]
Translate = Callable[[BaseException], EndpointError]


@dataclass(eq=False)
class _Debt:
    task: EngineTask
    retries: int
    answer: Future[bytes] = field(default_factory=Future)
    attempt: Future[bytes] | None = None


class Ledger:
    """Keeps the books between `submit` and the answer. Thread-safe."""

    def __init__(self, launch: Launch, translate: Translate, retries: int) -> None:
        """`launch` starts one attempt; `translate` turns what an attempt failed with into an error of ours."""
        self._launch = launch
        self._translate = translate
        self._retries = retries
        self._lock = threading.Lock()
        self._debts: set[_Debt] = set()
        self._closed: Callable[[], EndpointError | None] | None = None
        self.total = 0

    @property
    def outstanding(self) -> int:
        """How many tasks have no answer yet."""
        return len(self._debts)

    def submit(self, task: EngineTask) -> Future[bytes]:
        """The future of the task's answer. Raises TaskRefused where the engine won't have the task."""
        debt = _Debt(task, self._retries)
        with self._lock:
            if self._closed is not None:
                _give(debt, self._closed())
                return debt.answer
            self._debts.add(debt)
            self.total += 1
        try:
            self._attempt(debt)
        except TaskRefused:
            self._take(debt)
            raise
        return debt.answer

    def cancel(self, task_id: str) -> bool:
        """Take a task back that no worker has begun."""
        with self._lock:
            found = [debt for debt in self._debts if debt.task.task_id == task_id]
        cancelled = False
        for debt in found:
            if debt.attempt is not None and debt.attempt.cancel():
                cancelled = True
                self._fail(debt, TaskRefused("The task was cancelled before it ran", code="TASK_CANCELLED"))
        return cancelled

    def close(self, reason: Callable[[], EndpointError | None]) -> bool:
        """Answer all that is owed, and all that comes later, with `reason()`; None cancels the answers.

        False when it was closed before.
        """
        with self._lock:
            if self._closed is not None:
                return False
            self._closed = reason
            left, self._debts = self._debts, set()
        for debt in left:
            _give(debt, reason())
        return True

    def _attempt(self, debt: _Debt) -> None:
        try:
            attempt = self._launch(debt.task)
        except TaskRefused:
            raise
        except EndpointError as error:
            self._fail(debt, error)
            return
        debt.attempt = attempt
        attempt.add_done_callback(lambda done: self._settle(debt, done))

    def _settle(self, debt: _Debt, done: Future[bytes]) -> None:
        if done.cancelled():
            return  # whoever cancelled it has answered
        failure = done.exception()
        if failure is None and not done.result():
            failure = NotBegun("The worker did not begin the task")
        if failure is None:
            if self._take(debt):
                debt.answer.set_result(done.result())
            return
        error = failure if isinstance(failure, EndpointError) else self._translate(failure)
        if not error.retry or isinstance(error, NotBegun) or debt.retries <= 0 or self._closed is not None:
            self._fail(debt, error)
            return
        debt.retries -= 1
        try:
            self._attempt(debt)
        except TaskRefused as refused:
            self._fail(debt, refused)

    def _fail(self, debt: _Debt, error: EndpointError) -> None:
        if self._take(debt):
            _give(debt, error)

    def _take(self, debt: _Debt) -> bool:
        """Whether the caller is the one that answers."""
        with self._lock:
            if debt not in self._debts:
                return False
            self._debts.remove(debt)
        debt.attempt = None  # which holds the debt: together they would keep the task's body until a garbage collection
        return True


def _give(debt: _Debt, error: EndpointError | None) -> None:
    if error is None:
        debt.answer.cancel()
    else:
        debt.answer.set_exception(error)
