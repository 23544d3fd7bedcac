"""The tasks of a user endpoint: from their deliveries to the engine, and from the engine to their answers.

Lives on the asyncio loop; an engine's threads only leave a note with `call_soon_threadsafe`, so an answer is on its
way to the broker as soon as it is there. What happens to a task is decided by the table in `tasks.py`; what the next
process must know is in the journal before it happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import Future
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
    TaskCancelled,
    TaskLost,
)
from endpoint.user.answers import Answers, Publish
from endpoint.user.condition import Condition
from endpoint.user.deliveries import Deliveries, Settled
from endpoint.user.engine_room import EngineRoom
from endpoint.user.finished import Finished
from endpoint.user.hooks import TaskHook
from endpoint.user.journal import Journal
from endpoint.user.spool import Spool
from endpoint.user.tasks import Action, Event, State
from endpoint.user.withdrawn import Withdrawn
from endpoint.wire.codec import cancelled_task
from endpoint.wire.headers import HeadersRefused, TaskHeaders

log = logging.getLogger(__name__)

AGAIN_S = 1.0  # how long a task waits that the engine gave back, or for which the disk has no space
MOST_HERE = 100_000  # tasks that are here at once; more wait with the broker


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
        self._condition = condition
        self._loop = asyncio.get_running_loop()
        self._stopping = self._ended = False
        self._hook = hook
        self._table = hook.table()
        self._inputs: dict[str, tuple[TaskHeaders, bytes]] = {}  # of the tasks that have no answer yet
        self._withdrawn = Withdrawn(self._forget)
        self._finished = Finished(self._on_result)
        self._retry: asyncio.TimerHandle | None = None
        self._settled = asyncio.Event()
        self._journal, spool = _open_files(run_dir)
        self._answers = Answers(
            self._journal,
            endpoint_id=endpoint_id,
            publish=publish,
            on_confirmed=lambda task_id: self._do(task_id, Event.CONFIRMED),
            on_unpublished=lambda task_id: self._table.happened(task_id, Event.UNPUBLISHED),
        )
        self._deliveries = Deliveries(spool, ack_deadline_s, lambda task_id: self._do(task_id, Event.DEADLINE))
        # Those that are not here belong to their events, which come with more than a task's id.
        self._actions: dict[Action, Callable[[str], None]] = {
            Action.SUBMIT: self._submit,
            Action.TELL: self._tell,
            Action.CANCEL: self._cancel,
            Action.REMEMBER: self._remember,
            Action.TELL_CANCELLED: self._tell_cancelled,
            Action.ACK: self._deliveries.ack,
            Action.REQUEUE: self._deliveries.requeue,
            Action.DISOWN: self._deliveries.disown,
            Action.KEEP: self._deliveries.keep_soon,
        }
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
                self._answers.publish(task_id, found.answer)
            elif found.cancelled:
                self._answers.had_begun(task_id, found.starts, "endpoint")
                self._table.happened(task_id, Event.FOUND_CANCELLED)
                self._withdrawn.add(task_id)
            elif len(found.starts) > self._room.retries:
                self._answers.had_begun(task_id, found.starts, "endpoint")
                self._table.happened(task_id, Event.FOUND_STARTED)
        self._journal.found.clear()
        for delivery in self._deliveries.kept():
            self.on_delivery(delivery)

    async def start_engine(self) -> None:
        """Make the engine ready, and give it what waits. Raises EngineFailure, ConfigError."""
        await self._room.start()

    # -- deliveries ----------------------------------------------------------------------------------------------------

    def on_delivery(self, delivery: Settled) -> None:
        """A task came, or came again; or somebody does not want one any more."""
        if (task_id := cancelled_task(delivery.body)) is not None:
            self._do(task_id, Event.CANCEL)
            delivery.ack()
            return
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
            self._actions[action](task_id)
        return is_new

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
        self._finished.watch(task_id, future)

    def _on_result(self, task_id: str, done: Future[bytes]) -> None:
        if done.cancelled() or self._ended:  # our own shutdown does that; what becomes of the task is decided there
            return
        error = done.exception()
        if error is None:
            self._answer(task_id, Event.RESULT, done.result())
        elif isinstance(error, NotBegun):
            self._do(task_id, Event.NOT_BEGUN)
            if self._table.state(task_id) is not State.HELD:
                pass  # it was cancelled
            elif self._stopping:
                self._hand_back(task_id)
            else:
                self._offer_later()
        elif isinstance(error, EngineGone):
            pass  # the engine tells that too, and then all its tasks are seen to
        elif isinstance(error, TaskCancelled):
            self._hook.failed(task_id, error.failure.reason)
            log.info("Task cancelled: %s", error, extra={"task": task_id, **error.failure.fields})
            self._answer(task_id, Event.CANCELLED, error)
        elif isinstance(error, EndpointError):
            log.warning("Task failed: %s", error, extra={"task": task_id, **error.failure.fields})
            self._answer(task_id, Event.RESULT, error)
        else:
            log.error("Task failed in the engine", exc_info=error, extra={"task": task_id})
            lost = TaskLost(f"The engine lost the task: {type(error).__name__}: {error}")
            self._answer(task_id, Event.RESULT, lost)

    def _see_to_interrupted(self, stopped: str) -> None:
        """The engine is gone, and all that it ran: tasks that may begin (again) wait, the others are told of."""
        starts = self._journal.refresh()
        for task_id in self._table.within(State.SUBMITTED):
            marks = starts.get(task_id, [])
            if len(marks) > self._room.retries:
                self._answers.had_begun(task_id, marks, stopped)
                self._do(task_id, Event.STARTED)
                self._do(task_id, Event.LOST)
            else:
                self._do(task_id, Event.ENGINE_GONE)
        for task_id in self._table.within(State.CANCELLING):
            self._answers.had_begun(task_id, starts.get(task_id, []), stopped)
            self._do(task_id, Event.ENGINE_GONE)

    # -- answers -------------------------------------------------------------------------------------------------------

    def _refuse(self, task_id: str, error: EndpointError) -> None:
        log.warning("Task refused: %s", error, extra={"task": task_id, **error.failure.fields})
        self._hook.failed(task_id, error.failure.reason)
        self._answer(task_id, Event.REFUSED, error)

    def _answer(self, task_id: str, event: Event, answer: bytes | EndpointError) -> None:
        self._table.happened(task_id, event)
        self._give(task_id, answer)

    def _give(self, task_id: str, answer: bytes | EndpointError) -> None:
        self._inputs.pop(task_id, None)
        self._answers.give(task_id, answer)

    def _tell(self, task_id: str) -> None:
        self._give(task_id, self._answers.interrupted(task_id))

    def _tell_cancelled(self, task_id: str) -> None:
        self._withdrawn.discard(task_id)
        self._give(task_id, self._answers.cancelled(task_id))

    def _forget(self, task_id: str) -> None:
        self._answers.forget(task_id)
        self._table.happened(task_id, Event.FORGET)
        self._journal.handed_back(task_id)

    # -- the table's actions -------------------------------------------------------------------------------------------

    def _do(self, task_id: str, event: Event) -> None:
        for action in self._table.happened(task_id, event):
            self._actions[action](task_id)
        if not self._table:
            self._settled.set()

    def _cancel(self, task_id: str) -> None:
        self._journal.cancelled(task_id)
        self._room.cancel(task_id)

    def _remember(self, task_id: str) -> None:
        self._journal.cancelled(task_id)
        self._withdrawn.add(task_id)

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
        self._finished.take()  # at the last moment
        self._see_to_interrupted("endpoint")
        for task_id in self._table.within(State.HELD):
            self._hand_back(task_id)

    def close(self) -> None:
        """Nothing more is settled; what is not confirmed is on the disk for the next process."""
        self._ended = True
        self._answers.close()
        self._withdrawn.close()
        self._deliveries.close()
        if self._retry is not None:
            self._retry.cancel()
        if self._table:
            self._journal.sync()
        self._journal.close()


def _open_files(run_dir: Path) -> tuple[Journal, Spool]:
    """What the endpoint remembers its tasks with. Raises ConfigError."""
    try:
        return Journal(run_dir / "journal"), Spool(run_dir / "spool")
    except OSError as error:
        raise ConfigError(
            f"The endpoint's directory {run_dir} can't be used: {error.strerror}",
            hint="It needs a place that it can write to, with space for the tasks that are under way",
            stage=Stage.EXEC,
        ) from error
