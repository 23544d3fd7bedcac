"""What happens to tasks, told to whoever started this user endpoint, for its audit log.

The manager (ours or the official one) or the keeper gives a pipe with the start document. Each event is one packet in
it, in the official endpoint's form (`endpoint.privileged.audit_tasks`). Who reads it adds the time and whose it is.

Nothing waits for the pipe. When it is full, packets are kept, up to a bound; then they are dropped and counted, and a
packet says how many. Where no event may be lost (`strict`: high assurance, or an audit log that is required) no task
begins before everything that was told so far is in the log: the pipe is small then, and whoever reads it takes a packet
out when it is written down. The endpoint ends when nobody can read them any more.

Without a pipe none of this is there: `AuditedTable` and `AuditedStarts` take the places of what they extend.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from endpoint.errors import EndpointError, Mender, Stage
from endpoint.privileged.audit_lines import task_text
from endpoint.user.audit_marks import Begun, Marks
from endpoint.user.hooks import TaskHook
from endpoint.user.journal import Journal
from endpoint.user.tasks import Action, Event, State, TaskTable

log = logging.getLogger(__name__)

LONGEST_PACKET: Final = 1024
LONGEST_REASON: Final = 256
MOST_KEPT: Final = 10_000  # packets
LOOK_S: Final = 0.5  # between two looks for what workers have noted
FLUSH_S: Final = 1.0  # for the last packets, at the end

# What is told when something happens to a task; `-` and the reason follow FAILED.
TOLD: Final[dict[tuple[State | None, Event], tuple[str, ...]]] = {
    (None, Event.ARRIVED): ("RECEIVED",),
    (State.HELD, Event.ROOM): ("EXEC_START",),
    (State.HELD, Event.REFUSED): ("FAILED", "EXEC_END"),
    (State.SUBMITTED, Event.REFUSED): ("FAILED", "EXEC_END"),
    (State.SUBMITTED, Event.RESULT): ("EXEC_END",),
    (State.STARTED, Event.RESULT): ("EXEC_END",),
    (State.STARTED, Event.LOST): ("FAILED", "EXEC_END"),
    (State.HELD, Event.CANCEL): ("FAILED", "EXEC_END"),
    (State.CANCELLING, Event.RESULT): ("EXEC_END",),
    (State.CANCELLING, Event.CANCELLED): ("FAILED", "EXEC_END"),
    (State.CANCELLING, Event.NOT_BEGUN): ("FAILED", "EXEC_END"),
    (State.CANCELLING, Event.ENGINE_GONE): ("FAILED", "EXEC_END"),
    (State.WITHDRAWN, Event.ARRIVED): ("RECEIVED", "FAILED", "EXEC_END"),
    (State.INTERRUPTED, Event.ARRIVED): ("RECEIVED", "FAILED", "EXEC_END"),
}
# The reason of a FAILED where nobody else gives one.
CANCELLED: Final = "The task was cancelled"
REASONS: Final[dict[tuple[State | None, Event], str]] = {
    (State.HELD, Event.CANCEL): CANCELLED,
    (State.CANCELLING, Event.NOT_BEGUN): CANCELLED,
    (State.CANCELLING, Event.ENGINE_GONE): CANCELLED,
    (State.WITHDRAWN, Event.ARRIVED): CANCELLED,
}
LAST: Final = frozenset(
    {moved for moved, words in TOLD.items() if words[-1] == "EXEC_END"}
    | {(State.HELD, Event.STOP)}  # the broker has it again: it is told of anew where it arrives
)


class AuditLost(EndpointError):
    """Nobody reads what happens to tasks, where that must be written down."""

    mender = Mender.ADMIN
    stage = Stage.RUN
    code = "AUDIT_LOST"


@dataclass
class _Told:
    """What is known of a task; `running` once that was told."""

    function: str = ""
    reason: str = "The task was interrupted"
    block: str = ""
    job: str = ""
    running: bool = False


class TaskAudit(TaskHook):
    """Tells of tasks. `begun` may be called from any thread, the rest from the loop's."""

    def __init__(self, descriptor: int, *, strict: bool) -> None:
        """`descriptor`: the pipe, which is this object's from here on. Raises OSError where it is none."""
        self._pipe = _Pipe(descriptor, strict=strict)
        self._tasks: dict[str, _Told] = {}
        self._coming = ("", "")  # a task and its function
        self._marks: Marks | None = None
        self._job_of: Callable[[str], str | None] = lambda block: None
        self._look: asyncio.TimerHandle | None = None

    def table(self) -> TaskTable:
        return AuditedTable(self)

    def begin(
        self,
        journal: Journal,
        *,
        job_of: Callable[[str], str | None],
        on_lost: Callable[[EndpointError], None],
        on_room: Callable[[], None],
    ) -> AuditedStarts:
        self._marks = Marks(journal)
        self._job_of = job_of
        self._pipe.on_lost = on_lost
        self._pipe.on_room = on_room
        return AuditedStarts(journal, self._marks, self)

    @property
    def has_room(self) -> bool:
        return self._pipe.has_room

    def of(self, task_id: str, function_id: str) -> None:
        self._coming = (task_id, function_id)

    def failed(self, task_id: str, reason: str) -> None:
        if told := self._tasks.get(task_id):
            told.reason = reason

    def happened(self, task_id: str, before: State | None, event: Event) -> None:
        """Tell what the task's table has decided."""
        for word in TOLD.get((before, event), ()):
            if word == "RECEIVED":
                coming, function = self._coming
                self._tasks[task_id] = _Told(function if coming == task_id else "")
            elif word == "EXEC_START" and self._marks is not None:
                self._marks.submitted(task_id)
                self._look_later()
            elif word == "FAILED" and (before, event) in REASONS:
                self.failed(task_id, REASONS[before, event])
            elif word == "EXEC_END":
                self._look_now(task_id)
            self._tell(task_id, word)
        if (before, event) in LAST:
            self._tasks.pop(task_id, None)
            if self._marks is not None:
                self._marks.done(task_id)

    def begun(self, task_id: str, found: Begun | None = None) -> None:
        """A task runs; `found` is a worker's mark of that."""
        told = self._tasks.get(task_id)
        if told is None:
            return
        told.running = True
        if found is not None and found.block:
            told.block, told.job = found.block, self._job_of(found.block) or ""
        self._tell(task_id, "RUNNING", found)

    def close(self) -> None:
        """Send what is kept, for a moment, and close the pipe."""
        if self._look is not None:
            self._look.cancel()
        if self._marks is not None:
            self._marks.close()
        self._pipe.close()

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, task_id: str, word: str, found: Begun | None = None) -> None:
        told = self._tasks.get(task_id) or _Told()
        text = task_text(word, function=told.function, task=task_id, block=told.block, job=told.job)
        if word == "FAILED":
            text += f" - {told.reason[:LONGEST_REASON]}"
        elif found is not None:
            when = datetime.fromtimestamp(found.time, timezone.utc).isoformat(timespec="milliseconds")
            text += f" - on {found.host} at {when}"
        self._pipe.send(text)

    # -- what workers note -------------------------------------------------------------------------------------------

    def _look_now(self, task_id: str = "") -> None:
        """`task_id`: where this one is known to run there is nothing to look for."""
        told = self._tasks.get(task_id)
        if self._marks is not None and not (told and told.running):
            for found in self._marks.new():
                self.begun(found.task_id, found)

    def _look_later(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._look_now()
        if self._marks is not None and self._marks.waiting:
            self._look_later()


class AuditedTable(TaskTable):
    """A table of tasks whose moves are told."""

    def __init__(self, audit: TaskAudit) -> None:
        super().__init__()
        self._audit = audit

    def happened(self, task_id: str, event: Event) -> tuple[Action, ...]:
        before = self.state(task_id)
        actions = super().happened(task_id, event)
        self._audit.happened(task_id, before, event)
        return actions


class AuditedStarts:
    """Where engines note that a task begins: in the journal, and then that is told. See `engines.base.Starts`."""

    wants_places = True

    def __init__(self, journal: Journal, marks: Marks, audit: TaskAudit) -> None:
        self._journal = journal
        self._marks = marks
        self._audit = audit
        self._loops_thread = threading.get_ident()
        self._placing = False  # whether this engine tells when a block has a task

    @property
    def path(self) -> str | None:
        return self._marks.path()

    def started(self, task_id: str) -> bool:
        if not self._journal.started(task_id):
            return False
        # An engine that notes it while it is given the task doesn't know when its workers, elsewhere, begin.
        if threading.get_ident() != self._loops_thread and not self._placing:
            self._audit.begun(task_id)
        return True

    def placed(self, task_id: str, host: str, block: str) -> None:
        self._placing = True
        self._audit.begun(task_id, Begun(task_id, time.time(), host, block))

    def new_page(self) -> str | None:
        return self._marks.new_page()

    def begun_as(self, task_id: str, page: str, number: int) -> None:
        self._marks.begun_as(task_id, page, number)

    def drop_page(self, path: str) -> None:
        self._marks.drop_page(path)


class _Pipe:
    """The writing end: packets go at once, or are kept."""

    def __init__(self, descriptor: int, *, strict: bool) -> None:
        self.strict = strict
        self.on_lost: Callable[[EndpointError], None] = lambda error: None
        self.on_room: Callable[[], None] = lambda: None
        self.kept: deque[bytes] = deque()
        self._descriptor: int | None = descriptor
        self._dropped = 0
        self._unread = False  # strict only: a packet is perhaps not written down yet
        self._waiting = False
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        os.set_inheritable(descriptor, False)  # it is not for the engine's processes
        os.set_blocking(descriptor, False)
        packets = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
        self._end = b"" if packets else b"\n"

    @property
    def has_room(self) -> bool:
        """Whether a task may begin."""
        return not self.strict or not (self.kept or self._unread)

    def send(self, text: str) -> None:
        """Never waits, never raises."""
        if not text.isprintable():
            text = "".join(char if char.isprintable() else " " for char in text)
        packet = text.encode(errors="replace")[:LONGEST_PACKET] + self._end
        with self._lock:
            idle = not self.kept and not self._dropped
            written = self._is_open() and idle and self._write(packet)
            if not self._is_open() or (written and not self.strict):
                return
            if written:
                self._unread = True  # until the pipe can be written to again
            elif len(self.kept) < MOST_KEPT or self.strict:  # no more tasks begin: it is bounded by those that run
                self.kept.append(packet)
            else:
                self._dropped += 1
            if self._waiting:
                return
            self._waiting = True
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._watch)

    def close(self) -> None:
        """Write what is kept, if that can be done soon, and close it."""
        with self._lock:
            self._unwatch()
            deadline = time.monotonic() + FLUSH_S
            while not self._drained() and self._descriptor is not None and time.monotonic() < deadline:
                _wait_for_room(self._descriptor, deadline)
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _is_open(self) -> bool:
        return self._descriptor is not None

    def _watch(self) -> None:
        if self._descriptor is not None:
            self._loop.add_writer(self._descriptor, self._flush)

    def _unwatch(self) -> None:
        if self._waiting and self._descriptor is not None:
            self._loop.remove_writer(self._descriptor)
        self._waiting = False

    def _flush(self) -> None:
        """The pipe has room again: what was in it is read."""
        with self._lock:
            self._unread = self.strict and bool(self.kept)  # then what is kept goes into it now
            if not self._drained() or self._unread:
                return
            self._unwatch()
        if self.strict:
            self.on_room()

    def _drained(self) -> bool:
        """Write what is kept; whether nothing is left."""
        while self.kept and self._descriptor is not None:
            if not self._write(self.kept[0]):
                return False
            self.kept.popleft()
        if self._dropped and self._descriptor is not None:
            if not self._write(f"{task_text('DROPPED')} - {self._dropped} events".encode() + self._end):
                return False
            log.warning("%d events of tasks are not in the audit log: it is written too slowly", self._dropped)
            self._dropped = 0
        return True

    def _write(self, packet: bytes) -> bool:
        """Whether it was written; the pipe is closed when nobody reads any more."""
        assert self._descriptor is not None
        try:
            os.write(self._descriptor, packet)  # whole or not at all: it is shorter than PIPE_BUF
            return True
        except BlockingIOError:
            return False
        except OSError as error:
            self._lose(error)
            return False

    def _lose(self, error: OSError) -> None:
        lost = AuditLost("What happens to tasks can't be written to the audit log any more", detail=str(error))
        log.error("%s", lost.failure.for_admin(), extra=lost.failure.fields)
        self._close_soon()
        self.kept.clear()
        if self.strict:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.on_lost, lost)

    def _close_soon(self) -> None:
        """The loop must hear of it in its own thread, and before the number is another file's."""
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None

        def close() -> None:
            self._loop.remove_writer(descriptor)
            os.close(descriptor)

        try:
            self._loop.call_soon_threadsafe(close)
        except RuntimeError:
            os.close(descriptor)


def _wait_for_room(descriptor: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
