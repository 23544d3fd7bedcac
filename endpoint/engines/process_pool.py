"""The worker processes of one machine, and which task goes to which of them.

Everything here happens on one event loop, but for what is marked. A process that answers within milliseconds is given
several small tasks ahead, so that neither side waits for the other, and other processes are left to sleep; what lies
with a process that then takes long is taken back and goes to whoever is free.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from endpoint.engines.base import EngineTask, Starts
from endpoint.engines.cancelled import before_it_began
from endpoint.engines.pace import Pace
from endpoint.engines.process_end import Ending
from endpoint.engines.process_link import WORD, Attempt, WorkerProcess
from endpoint.errors import EndpointError, EngineFailure, NotBegun, TaskLost

log = logging.getLogger(__name__)

SMALL_BYTES = 64 * 1024  # larger tasks are given one at a time
STUCK_S = 0.01  # a process that has not moved for so long gets nothing ahead, and what it has is taken back
PAGE_KEPT_S = 10.0
TERM_PATIENCE_S = 2.0  # between asking processes to end and making them

T = TypeVar("T")
MakeProcess = Callable[[], WorkerProcess]


class _Worker:
    """One process of the pool."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.pace = Pace()
        self.ending: Ending | None = None

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do, and can have something."""
        return not self.process.given and not self.process.putting_back and self.ending is None

    def ahead(self, now: float, depth: int, most: int | None) -> int:
        """How many more tasks it may have, so that it has `depth` at the most."""
        process = self.process
        stays = not process.putting_back and self.ending is None
        moves = process.ready and stays and now - process.moved < STUCK_S
        if not moves or not process.given or process.page is None:
            return 0
        left = depth if most is None else most - process.count
        return max(0, min(left, depth - len(process.given)))


class ProcessPool:
    """At most `size` processes, made as they are needed. Tasks begin in the order of submission.

    most_tasks: how many a process may run before it is replaced; None for no limit.
    cancel_grace: seconds between asking a process to end whose task is cancelled, and making it.
    """

    def __init__(self, size: int, most_tasks: int | None = None, cancel_grace: float = 0) -> None:
        self.size = size
        self._most_tasks = most_tasks
        self._cancel_grace = cancel_grace
        self._waiting: deque[Attempt] = deque()
        self._workers: list[_Worker] = []
        self._starting = 0
        self._closed = False
        self._woken = False
        self._look: asyncio.TimerHandle | None = None
        self._own_loop: threading.Thread | None = None

    def open(self, make: MakeProcess, starts: Starts, loop: asyncio.AbstractEventLoop | None) -> None:
        """make: makes a process, in any thread; raises EndpointError. loop: where the pool lives; None for its own."""
        self._make = make
        self._starts = starts
        self._loop = loop or asyncio.new_event_loop()
        if loop is None:
            self._own_loop = threading.Thread(target=self._loop.run_forever, name="processes", daemon=True)
            self._own_loop.start()

    # -- from any thread -----------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many tasks no process has begun."""
        unbegun = sum(not attempt.future.cancelled() for attempt in list(self._waiting))
        return unbegun + sum(max(0, len(one.process.given) - 1) for one in self._workers)

    @property
    def busy(self) -> int:
        """How many processes have something to do."""
        return sum(bool(one.process.given) for one in self._workers)

    def submit(self, task: EngineTask) -> Future[bytes]:
        """The future of one attempt; it can be cancelled until a process has it."""
        attempt = Attempt(task)
        if self._closed:
            attempt.future.cancel()
            return attempt.future
        self._waiting.append(attempt)
        self._wake()
        return attempt.future

    def cancel(self, future: Future[bytes]) -> None:
        """Nobody wants an attempt any more: it is cancelled, or fails with TaskCancelled when it has been stopped."""
        if not future.cancel() and not future.done():
            self._on_loop(lambda: self._stop(future))

    def give_back(self) -> None:
        """Take nothing more; what waits fails with NotBegun, what runs goes on."""
        self._closed = True
        self._on_loop(self._fail_waiting)

    def close(self) -> None:
        """Take nothing more, and end the processes, also in the midst of a task."""
        self._closed = True
        if not hasattr(self, "_loop"):
            return
        ending = self._on_loop(self._let_go)
        for process in ending:
            process.terminate()
        deadline = time.monotonic() + TERM_PATIENCE_S
        for process in ending:
            process.end(max(0, deadline - time.monotonic()))
            process.release()
        if self._own_loop is not None and self._own_loop.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._own_loop.join()
            self._loop.close()

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _on_loop(self, call: Callable[[], T]) -> T:
        if self._is_here() or not self._loop.is_running():
            return call()
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(call()))
        return done.result()

    def _wake(self) -> None:
        """Hand out what waits, once for all that is submitted by then."""
        if self._woken:
            return
        self._woken = True
        if self._is_here():
            self._loop.call_soon(self._hand_out)
        else:
            self._loop.call_soon_threadsafe(self._hand_out)

    # -- tasks out -----------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        self._woken = False  # first: what is added from here on wakes us again
        if not self._waiting or self._closed:
            return
        now = time.monotonic()
        for worker in self._workers:  # those that have done it before anybody else could begin
            self._give(worker, worker.ahead(now, worker.pace.soon, self._most_tasks), small=True)
        for worker in self._workers:
            if worker.idle:
                self._give(worker, 1, small=False)
        self._start_processes()
        if self._waiting and not self._starting:
            share = -(-len(self._waiting) // max(1, len(self._workers)))
            for worker in self._workers:
                ahead = worker.ahead(now, worker.pace.depth, self._most_tasks)
                self._give(worker, min(share, ahead), small=True)
        self._look_later()

    def _give(self, worker: _Worker, number: int, *, small: bool) -> None:
        attempts: list[Attempt] = []
        while len(attempts) < number and self._waiting:
            if small and len(self._waiting[0].task.body) > SMALL_BYTES:
                break
            attempt = self._waiting.popleft()
            if not attempt.take():
                continue
            if worker.process.page is None and not self._starts.started(attempt.task.task_id):
                attempt.future.set_exception(NotBegun("The start of the task can't be noted"))
                continue
            attempts.append(attempt)
        if attempts:
            worker.process.give(attempts)
            self._flush(worker)

    def _flush(self, worker: _Worker) -> None:
        if not worker.process.flush():
            self._loop.add_writer(worker.process.socket, self._continue, worker)

    def _continue(self, worker: _Worker) -> None:
        if worker.process.flush():
            self._loop.remove_writer(worker.process.socket)

    def _look_later(self) -> None:
        if self._look is None and any(len(one.process.given) > 1 for one in self._workers):
            self._look = self._loop.call_later(STUCK_S, self._look_again)

    def _look_again(self) -> None:
        """Take back what lies with processes that don't move."""
        self._look = None
        now = time.monotonic()
        for worker in self._workers:
            process = worker.process
            if len(process.given) > 1 and now - process.moved >= STUCK_S and not process.putting_back:
                self._take_back(worker)
        self._hand_out()
        self._look_later()

    def _take_back(self, worker: _Worker) -> None:
        self._waiting.extendleft(reversed(worker.process.take_back()))
        self._flush(worker)

    def _fail_waiting(self) -> None:
        for worker in self._workers:
            if not worker.process.putting_back:
                self._take_back(worker)
        while self._waiting:
            attempt = self._waiting.popleft()
            if attempt.take():
                attempt.future.set_exception(NotBegun("The engine stops"))

    # -- cancellation --------------------------------------------------------------------------------------------------

    def _stop(self, future: Future[bytes]) -> None:
        for worker in self._workers:
            given = worker.process.given
            if all(attempt.future is not future for attempt in given):
                continue
            if not worker.process.putting_back:
                self._take_back(worker)  # the others shall not begin there; perhaps it has not begun itself
            # A task behind which another one has begun has ended, and so has its answer.
            if given and given[-1].future is future and worker.ending is None:
                self._end(worker, given[-1])
            break
        self._drop_waiting(future)
        self._wake()

    def _end(self, worker: _Worker, attempt: Attempt) -> None:
        worker.ending = Ending(
            worker.process,
            attempt,
            grace=self._cancel_grace,
            loop=self._loop,
            on_over=lambda: self._on_end(worker),
        )

    def _drop_waiting(self, future: Future[bytes]) -> None:
        """For one that a process has had, so that its future can't be cancelled."""
        for attempt in self._waiting:
            if attempt.future is future:
                self._waiting.remove(attempt)
                future.set_exception(before_it_began())
                return

    # -- results in ----------------------------------------------------------------------------------------------------

    def _on_readable(self, worker: _Worker) -> None:
        frames = worker.process.receive()
        if frames is None:
            self._on_end(worker)
            return
        self._take_in(worker, frames)
        self._retire_if_used_up(worker)
        if self._waiting:
            self._hand_out()

    def _take_in(self, worker: _Worker, frames: list[bytes]) -> None:
        process = worker.process
        now = time.monotonic()
        answers = [frame for frame in frames if frame != WORD]
        if len(answers) < len(frames):
            process.ready, process.putting_back = True, False
        if answers:
            worker.pace.took(now - process.moved, len(answers))
        for frame in answers:
            attempt = process.given.popleft()
            if process.page:
                self._starts.begun_as(attempt.task.task_id, process.page, process.answered)
            process.answered += 1
            attempt.future.set_result(frame)
        process.moved = now
        if worker.ending is not None and not process.given:
            worker.ending.hurry()  # it answered, all the same

    def _retire_if_used_up(self, worker: _Worker) -> None:
        process = worker.process
        if self._most_tasks is not None and process.count >= self._most_tasks and not process.given:
            self._forget(worker)
            process.end()
            process.release()
            self._drop_page_later(process)

    # -- processes -----------------------------------------------------------------------------------------------------

    def _start_processes(self) -> None:
        idle = sum(not one.process.given for one in self._workers)
        wanted = min(self.size - len(self._workers) - self._starting, len(self._waiting) - idle - self._starting)
        for _ in range(wanted):
            self._starting += 1
            self._loop.run_in_executor(None, self._make).add_done_callback(self._on_started)

    def _on_started(self, done: asyncio.Future[WorkerProcess]) -> None:
        self._starting -= 1
        if (error := done.exception()) is not None:
            self._fail_first(error if isinstance(error, EndpointError) else EngineFailure(repr(error)))
            self._wake()
            return
        process = done.result()
        if self._closed:
            process.end()
            process.release()
            return
        worker = _Worker(process)
        self._workers.append(worker)
        self._loop.add_reader(process.socket, self._on_readable, worker)
        self._loop.add_reader(process.exit, self._on_end, worker)
        self._flush(worker)
        self._wake()

    def _fail_first(self, error: EndpointError) -> None:
        """A process that can't start costs one task, so that somebody is told and nothing turns in a circle."""
        while self._waiting:
            attempt = self._waiting.popleft()
            if attempt.take():
                attempt.future.set_exception(error)
                return

    def _on_end(self, worker: _Worker) -> None:
        """The process is gone; what it has said before counts."""
        if worker not in self._workers:
            return
        process, ending = worker.process, worker.ending
        if ending is not None and not ending.over:
            self._unwatch(worker)  # what its task has started may have ends to bring to an end
            return
        self._forget(worker)
        self._take_in(worker, process.receive_rest())
        how = process.end()
        begun, fresh = process.left()
        process.release()
        self._waiting.extendleft(reversed(fresh))
        if not process.ready:
            self._fail_first(EngineFailure(f"A new worker process {how}"))
        for attempt in begun:
            if process.page:  # which goes
                self._starts.started(attempt.task.task_id)
            if ending is not None and attempt is ending.attempt:
                attempt.future.set_exception(ending.outcome)
                continue
            log.warning("A worker process was lost: %s", how, extra={"task": attempt.task.task_id})
            attempt.future.set_exception(TaskLost(f"The worker process that ran the task {how}"))
        self._drop_page_later(process)
        self._wake()

    def _drop_page_later(self, process: WorkerProcess) -> None:
        """Its last answers may still be on their way to the journal."""
        if process.page:
            self._loop.call_later(PAGE_KEPT_S, self._starts.drop_page, process.page)

    def _forget(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        if worker.ending is not None:
            worker.ending.drop()
        self._unwatch(worker)

    def _unwatch(self, worker: _Worker) -> None:
        self._loop.remove_reader(worker.process.socket)
        self._loop.remove_writer(worker.process.socket)
        self._loop.remove_reader(worker.process.exit)

    def _let_go(self) -> list[WorkerProcess]:
        """Watch no process any more; these are left to be ended."""
        if self._look is not None:
            self._look.cancel()
        left = [one.process for one in self._workers]
        for worker in list(self._workers):
            self._forget(worker)
        return left
