"""The tasks of a user endpoint: from their deliveries to the engine, and from the engine to their answers.

Lives on the asyncio loop; an engine's threads only leave a note with `call_soon_threadsafe`, so an answer is on its
way to the broker as soon as it is there. What happens to a task is decided by the table in `tasks.py`; what the next
process must know is in the journal before it happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from endpoint.engines.base import Engine, EngineTask
from endpoint.errors import (
    ConfigError,
    EndpointError,
    EngineGone,
    FunctionNotAllowed,
    NotBegun,
    Stage,
    TaskInterrupted,
    TaskLost,
)
from endpoint.user.condition import Condition
from endpoint.user.deliveries import Deliveries, Settled
from endpoint.user.engine_room import EngineRoom
from endpoint.user.hooks import TaskHook
from endpoint.user.journal import Journal, Mark
from endpoint.user.spool import Spool
from endpoint.user.tasks import Action, Event, State
from endpoint.wire.codec import encode
from endpoint.wire.headers import HeadersRefused, TaskHeaders
from endpoint.wire.results import error_result

log = logging.getLogger(__name__)

REPUBLISH_S = 2.0  # how long an answer waits that the broker could not keep
AGAIN_S = 1.0  # how long a task waits that the engine gave back, or for which the disk has no space
MOST_HERE = 100_000  # tasks that are here at once; more wait with the broker

_running_loop = asyncio._get_running_loop  # raises nothing where none runs

Publish = Callable[[bytes, Callable[[EndpointError | None], None]], None]


class Work:
    """The tasks, the engine and the files that remember them.

    make_engine: builds the engine, also when it has to be replaced.
    publish: sends an answer, and calls back when the broker has confirmed it, or with why that will not be.
    on_broken: told when the engine can't go on.
    hook: hears of what happens to tasks.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        *,
        endpoint_id: str,
        run_dir: Path,
        allowed_functions: Collection[str] | None,
        ack_deadline_s: float,
        publish: Publish,
        on_broken: Callable[[EndpointError], None],
        condition: Condition,
        hook: TaskHook,
    ) -> None:
        """Raises ConfigError, also for a directory that can't be used."""
        self._endpoint_id = endpoint_id
        self._allowed = None if allowed_functions is None else {function.lower() for function in allowed_functions}
        self._publish_answer = publish
        self._condition = condition
        self._loop = asyncio.get_running_loop()
        self._stopping = self._ended = self._woken = False
        self._hook = hook
        self._table = hook.table()
        self._inputs: dict[str, tuple[TaskHeaders, bytes]] = {}  # of the tasks that have no answer yet
        self._marks: dict[str, tuple[Mark, str]] = {}  # of the tasks to be told of: the start, and what stopped
        self._keeping: set[asyncio.Future[None]] = set()  # asyncio itself holds on to no task
        self._finished: deque[tuple[str, Future[bytes]]] = deque()  # by the engine, and not yet seen by the loop
        self._retry: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()
        try:
            self._journal = Journal(run_dir / "journal")
            self._spool = Spool(run_dir / "spool")
        except OSError as error:
            raise ConfigError(
                f"The endpoint's directory {run_dir} can't be used: {error.strerror}",
                hint="It needs a place that it can write to, with space for the tasks that are under way",
                stage=Stage.EXEC,
            ) from error
        self._deliveries = Deliveries(self._spool, ack_deadline_s, self._overdue)
        self._room = EngineRoom(
            make_engine,
            endpoint_id=endpoint_id,
            run_dir=run_dir,
            starts=hook.begin(
                self._journal, job_of=lambda one: self._room.job_of(one), on_lost=on_broken, on_room=self._offer_held
            ),
            condition=condition,
            on_ready=self._offer_held,
            on_gone=lambda: self._see_to_interrupted("engine"),
            on_broken=on_broken,
        )

    # -- what the service shows and asks -------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """How many tasks the engine can run at once."""
        return self._room.capacity

    @property
    def received(self) -> int:
        """How many tasks have come so far, those not counted that were handed back."""
        return self._table.received

    @property
    def answered(self) -> int:
        """How many of them are answered."""
        return self._table.answered

    @property
    def open(self) -> int:
        """How many tasks are here, and not answered."""
        return len(self._table)

    def engine_status(self) -> dict[str, Any]:
        """The engine's part of a heartbeat."""
        self._condition.tasks(self._table.counts(), disk_full=self._journal.full_since is not None)
        return self._room.status()

    # -- beginning -----------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Take up what the last process has left."""
        for task_id, found in self._journal.found.items():
            if found.done:
                self._table.happened(task_id, Event.FOUND_ANSWERED)
            elif found.answer is not None:
                self._table.happened(task_id, Event.FOUND_RESULT)
                self._publish(task_id, found.answer)
            elif len(found.starts) > self._room.retries:
                self._marks[task_id] = (found.starts[-1], "endpoint")
                self._table.happened(task_id, Event.FOUND_STARTED)
        self._journal.found.clear()
        for delivery in self._spool.tasks():
            self.on_delivery(delivery)

    async def start_engine(self) -> None:
        """Make the engine ready, and give it what waits. Raises EngineFailure, ConfigError."""
        await self._room.start()

    # -- deliveries ----------------------------------------------------------------------------------------------------

    def on_delivery(self, delivery: Settled) -> None:
        """A task came; or came again."""
        try:
            headers = TaskHeaders.parse(delivery.headers)
        except HeadersRefused as error:
            if error.task_id is None:
                told = error.failure.for_admin()
                log.error("A message without a readable task id is dropped: %s", told, extra=error.failure.fields)
                delivery.reject()
            elif self._arrive(error.task_id, delivery):
                self._refuse(error.task_id, error)
            return
        task_id = headers.task_id
        self._hook.of(task_id, headers.function_id)
        if not self._arrive(task_id, delivery):
            return
        if self._allowed is not None and headers.function_id not in self._allowed:
            text = f"Function {headers.function_id} not permitted on endpoint {self._endpoint_id}"
            self._refuse(task_id, FunctionNotAllowed(text))
            return
        self._inputs[task_id] = (headers, delivery.body)
        self._offer(task_id)

    def broker_gone(self) -> None:
        """The connection broke, and with it every delivery that it brought."""
        for task_id in self._table:
            self._do(task_id, Event.BROKER_GONE)

    def _arrive(self, task_id: str, delivery: Settled) -> bool:
        """Note a delivery; whether its task is new here."""
        is_new = self._table.state(task_id) is None
        actions = self._table.happened(task_id, Event.ARRIVED)
        self._deliveries.adopt(task_id, delivery)
        self._settled.clear()
        for action in actions[1:]:
            self._act(task_id, action)
        return is_new

    def _overdue(self, task_id: str) -> None:
        self._do(task_id, Event.DEADLINE)

    # -- the engine ----------------------------------------------------------------------------------------------------

    def _offer(self, task_id: str) -> None:
        """Give a task to the engine, if that can be; else it stays held."""
        has_room = self._journal.full_since is None and self._hook.has_room
        if self._stopping:
            self._hand_back(task_id)
        elif self._room.ready and has_room and len(self._table) <= MOST_HERE:
            self._do(task_id, Event.ROOM)
        elif self._room.ready and self._hook.has_room:  # which else tells us when it has
            self._offer_later()

    def _offer_later(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(AGAIN_S, self._offer_held)

    def _offer_held(self) -> None:
        self._retry = None
        if self._journal.has_space():
            for task_id in self._table.within(State.HELD):
                self._offer(task_id)
        elif not self._stopping:
            self._offer_later()

    def _submit(self, task_id: str) -> None:
        headers, body = self._inputs[task_id]
        self._journal.submitted(task_id)
        task = EngineTask(
            task_id, headers.function_id, body, headers.resource_specification, tuple(headers.result_serializers)
        )
        try:
            future = self._room.submit(task)
        except EndpointError as error:
            self._refuse(task_id, error)
            return
        future.add_done_callback(lambda done: self._from_engine(task_id, done))

    def _from_engine(self, task_id: str, done: Future[bytes]) -> None:
        """Runs in any thread. The loop is woken once for all that has finished by the time it looks."""
        self._finished.append((task_id, done))
        if self._woken or self._loop.is_closed():
            return
        self._woken = True
        if _running_loop() is self._loop:
            self._loop.call_soon(self._take_finished)
        else:
            self._loop.call_soon_threadsafe(self._take_finished)

    def _take_finished(self) -> None:
        self._woken = False  # first: what is added from here on wakes the loop again
        while self._finished:
            self._on_result(*self._finished.popleft())

    def _on_result(self, task_id: str, done: Future[bytes]) -> None:
        if done.cancelled() or self._ended:  # our own shutdown does that; what becomes of the task is decided there
            return
        error = done.exception()
        if error is None:
            self._answer(task_id, Event.RESULT, done.result())
        elif isinstance(error, NotBegun):
            self._do(task_id, Event.NOT_BEGUN)
            if self._stopping:
                self._hand_back(task_id)
            else:
                self._offer_later()
        elif isinstance(error, EngineGone):
            pass  # the engine tells that too, and then all its tasks are seen to
        elif isinstance(error, EndpointError):
            log.warning("Task failed: %s", error, extra={"task": task_id, **error.failure.fields})
            self._answer(task_id, Event.RESULT, self._error_body(task_id, error))
        else:
            log.error("Task failed in the engine", exc_info=error, extra={"task": task_id})
            lost = TaskLost(f"The engine lost the task: {type(error).__name__}: {error}")
            self._answer(task_id, Event.RESULT, self._error_body(task_id, lost))

    def _see_to_interrupted(self, stopped: str) -> None:
        """The engine is gone, and all that it ran: tasks that may begin (again) wait, the others are told of."""
        starts = self._journal.refresh()
        for task_id in self._table.within(State.SUBMITTED):
            marks = starts.get(task_id, [])
            if len(marks) > self._room.retries:
                self._lose(task_id, marks[-1], stopped)
            else:
                self._do(task_id, Event.ENGINE_GONE)

    def _lose(self, task_id: str, mark: Mark, stopped: str) -> None:
        self._marks[task_id] = (mark, stopped)
        self._do(task_id, Event.STARTED)
        self._do(task_id, Event.LOST)

    # -- answers -------------------------------------------------------------------------------------------------------

    def _refuse(self, task_id: str, error: EndpointError) -> None:
        log.warning("Task refused: %s", error, extra={"task": task_id, **error.failure.fields})
        self._hook.failed(task_id, error.failure.reason)
        self._answer(task_id, Event.REFUSED, self._error_body(task_id, error))

    def _answer(self, task_id: str, event: Event, body: bytes) -> None:
        self._table.happened(task_id, event)
        self._journal.answered(task_id, body)
        self._publish(task_id, body)

    def _tell(self, task_id: str) -> None:
        mark, stopped = self._marks.pop(task_id)
        when = datetime.fromtimestamp(mark.time, timezone.utc).isoformat(sep=" ", timespec="seconds")
        error = TaskInterrupted(
            f"The task started on {mark.host} at {when}, the {stopped} stopped before it finished",
            hint="Submit it again if it may run twice",
        )
        log.warning("Task interrupted: %s", error, extra={"task": task_id, **error.failure.fields})
        body = self._error_body(task_id, error)
        self._journal.answered(task_id, body)
        self._publish(task_id, body)

    def _publish(self, task_id: str, body: bytes) -> None:
        self._inputs.pop(task_id, None)
        self._publish_answer(body, lambda error: self._on_published(task_id, body, error))

    def _on_published(self, task_id: str, body: bytes, error: EndpointError | None) -> None:
        if error is None:
            self._journal.done(task_id)
            self._do(task_id, Event.CONFIRMED)
        elif not self._ended:  # else the link is closed, and the next process publishes what the journal has
            log.error("An answer is not published: %s; trying again", error, extra={"task": task_id})
            self._table.happened(task_id, Event.UNPUBLISHED)
            self._loop.call_later(REPUBLISH_S, self._publish, task_id, body)

    def _error_body(self, task_id: str, error: EndpointError) -> bytes:
        return encode(error_result(task_id, error.failure, endpoint_id=self._endpoint_id))

    # -- the table's actions -------------------------------------------------------------------------------------------

    def _do(self, task_id: str, event: Event) -> None:
        for action in self._table.happened(task_id, event):
            self._act(task_id, action)
        if not self._table:
            self._settled.set()

    def _act(self, task_id: str, action: Action) -> None:
        if action is Action.SUBMIT:
            self._submit(task_id)
        elif action is Action.ACK:
            self._deliveries.ack(task_id)
        elif action is Action.TELL:
            self._tell(task_id)
        elif action is Action.REQUEUE:
            self._deliveries.requeue(task_id)
        elif action is Action.DISOWN:
            self._deliveries.disown(task_id)
        elif action is Action.KEEP:
            keeping = asyncio.ensure_future(self._deliveries.keep(task_id))
            self._keeping.add(keeping)
            keeping.add_done_callback(self._keeping.discard)
        else:
            raise AssertionError(f"{action} belongs to its event")

    def _hand_back(self, task_id: str) -> None:
        self._inputs.pop(task_id, None)
        self._journal.handed_back(task_id)
        self._do(task_id, Event.STOP)

    # -- the end -------------------------------------------------------------------------------------------------------

    def stop_starting(self) -> None:
        """Begin nothing more: what has not begun goes back to the broker."""
        self._stopping = True
        self._journal.close_gate()
        for task_id in self._table.within(State.HELD):
            self._hand_back(task_id)
        self._room.stop_starting()

    async def settled(self) -> None:
        """Wait until every task that is here is answered."""
        if self._table:
            self._settled.clear()
            await self._settled.wait()

    def hurry(self) -> None:
        """Wait for nothing any more."""
        self._settled.set()

    async def end_engine(self) -> None:
        """End the engine; tasks that it had are told of, handed back, or left for the next process to run again."""
        await self._room.end()
        self._take_finished()  # at the last moment
        self._see_to_interrupted("endpoint")
        for task_id in self._table.within(State.HELD):
            self._hand_back(task_id)

    def close(self) -> None:
        """Nothing more is settled; what is not confirmed is on the disk for the next process."""
        self._ended = True
        self._deliveries.close()
        if self._retry is not None:
            self._retry.cancel()
        if self._table:
            self._journal.sync()
        self._journal.close()
