"""The tasks that an engine owes an answer for.

Every task gets exactly one answer: its result, or an error of ours. A task that was lost is run again as often as the
configuration allows; when the engine can't go on, everything that is still owed is answered with the reason; when the
endpoint stops, the answers are cancelled (the broker still has those tasks). A task that nobody wants any more is not
run again; its answer is what comes first, the end of the attempt or the news that it was stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from endpoint.engines.base import EngineTask
from endpoint.engines.cancelled import before_it_began, lost
from endpoint.errors import EndpointError, NotBegun, TaskCancelled, TaskRefused

Launch = Callable[[EngineTask], "Future[bytes]"]
Translate = Callable[[BaseException], EndpointError]
Stop = Callable[[str, "Future[bytes]"], None]


@dataclass(eq=False)
class _Debt:
    task: EngineTask
    retries: int
    answer: Future[bytes] = field(default_factory=Future)
    attempt: Future[bytes] | None = None
    cancelled: bool = False


class Ledger:
    """Keeps the books between `submit` and the answer. Thread-safe."""

    def __init__(self, launch: Launch, translate: Translate, retries: int, stop: Stop) -> None:
        """`launch` starts one attempt; `translate` turns what an attempt failed with into an error of ours.

        stop: called with the task's id and its attempt when nobody wants it any more, perhaps twice: has the attempt
        end, by cancelling it or with TaskCancelled. Returns without waiting.
        """
        self._launch = launch
        self._translate = translate
        self._retries = retries
        self._stop = stop
        self._lock = threading.Lock()
        self._debts: dict[str, _Debt] = {}
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
            self._debts[task.task_id] = debt
            self.total += 1
        try:
            self._attempt(debt)
        except TaskRefused:
            self._take(debt)
            raise
        return debt.answer

    def cancel(self, task_id: str) -> bool:
        """Have a task stopped; whether it is owed."""
        debt = self._debts.get(task_id)
        if debt is None:
            return False
        debt.cancelled = True  # first: an attempt that is being launched looks for it afterwards
        if (attempt := debt.attempt) is not None:
            self._stop(task_id, attempt)
        return True

    def let_go(self, task_id: str, error: TaskCancelled) -> None:
        """Answer a task whose attempt can't be stopped; what comes of that is dropped."""
        if (debt := self._debts.get(task_id)) is not None:
            self._fail(debt, error)

    def close(self, reason: Callable[[], EndpointError | None]) -> bool:
        """Answer all that is owed, and all that comes later, with `reason()`; None cancels the answers.

        False when it was closed before.
        """
        with self._lock:
            if self._closed is not None:
                return False
            self._closed = reason
            left, self._debts = self._debts, {}
        for debt in left.values():
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
        if debt.cancelled:
            self._stop(debt.task.task_id, attempt)
        attempt.add_done_callback(lambda done: self._settle(debt, done))

    def _settle(self, debt: _Debt, done: Future[bytes]) -> None:
        if done.cancelled():
            if debt.cancelled:
                self._fail(debt, before_it_began())
            return  # else whoever cancelled it has answered
        failure = done.exception()
        if failure is None and not done.result():
            failure = NotBegun("The worker did not begin the task")
        if failure is None:
            if self._take(debt):
                debt.answer.set_result(done.result())
            return
        error = failure if isinstance(failure, EndpointError) else self._translate(failure)
        if debt.cancelled and not isinstance(error, TaskCancelled):
            error = before_it_began() if isinstance(error, NotBegun) else lost(error)
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
            if self._debts.get(debt.task.task_id) is not debt:
                return False
            del self._debts[debt.task.task_id]
        debt.attempt = None  # which holds the debt: together they would keep the task's body until a garbage collection
        return True


def _give(debt: _Debt, error: EndpointError | None) -> None:
    if error is None:
        debt.answer.cancel()
    else:
        debt.answer.set_exception(error)
