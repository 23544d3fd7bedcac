"""The life of a task in a user endpoint, as a table.

Everything that decides what happens to a task is here, and nothing here does any input or output: an event goes in,
the actions to take come out, and `service.py` carries them out. A task is known by its id; the broker may deliver it
more than once, so that `ARRIVED` can come in every state. `docs/architecture.md` has the table as a diagram.

A delivery ends in exactly one way: `ACK` (its answer is confirmed), `KEEP` (the disk has it, then the broker hears
that), or `REQUEUE` (somebody else, or a later process, may have it). When the link breaks before that, the broker
delivers the task again: it is the same task, so the new delivery takes the place of the old one and nothing runs
twice. Answered tasks are remembered (`ANSWERED_KEPT` of them), since an acknowledgement can be lost on the way as well.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Final

from endpoint.errors import EndpointError

ANSWERED_KEPT = 10_000


class State(str, enum.Enum):
    """Where a task is; the values are what `status` prints."""

    HELD = "held"  # here, and not given to the engine
    SUBMITTED = "submitted"  # the engine has it; nobody knows yet that it has begun
    STARTED = "started"  # it has begun: from now on it can't be run again without permission
    CANCELLING = "cancelling"  # the engine was told to stop it, and has not said yet what came of that
    PUBLISHING = "publishing"  # its answer is on the way to the broker
    ANSWERED = "answered"  # the broker has confirmed its answer
    INTERRUPTED = "interrupted"  # it had begun in an earlier process, and its delivery is still to come
    WITHDRAWN = "withdrawn"  # it was cancelled, and its delivery is still to come
    FORGOTTEN = "forgotten"  # it was cancelled, and never came: the same as unknown
    HANDED_BACK = "handed-back"  # the broker has it again: the same as unknown


class Event(str, enum.Enum):
    """What can happen to a task."""

    ARRIVED = "arrived"  # a delivery, the first one or another one
    ROOM = "room"  # the engine can take it
    REFUSED = "refused"  # it can't be given to the engine: an error is the answer
    STARTED = "started"  # its mark was found where starts are noted
    RESULT = "result"  # the engine is done with it, well or badly
    NOT_BEGUN = "not-begun"  # the engine gives it back as it was
    ENGINE_GONE = "engine-gone"  # the engine that had it is gone, and it may begin, for the first time or again
    LOST = "lost"  # it had begun, whoever ran it is gone, and it may not begin again
    CANCEL = "cancel"  # nobody wants its result any more
    CANCELLED = "cancelled"  # the engine has stopped it, or let go of it
    FORGET = "forget"  # it was cancelled long ago, or many others since, and has not come
    CONFIRMED = "confirmed"  # the broker has its answer
    UNPUBLISHED = "unpublished"  # the broker could not keep its answer
    BROKER_GONE = "broker-gone"  # the connection broke: its delivery can't be settled any more
    DEADLINE = "deadline"  # its delivery is older than a broker's patience allows
    STOP = "stop"  # the endpoint ends
    FOUND_STARTED = "found-started"  # the last process left the mark of its start, and no answer
    FOUND_RESULT = "found-result"  # the last process left its answer, unconfirmed
    FOUND_CANCELLED = "found-cancelled"  # it was cancelled in the last process, which left no answer
    FOUND_ANSWERED = "found-answered"  # the last process had its answer confirmed


class Action(str, enum.Enum):
    """What the service does about it, in the order given."""

    ADOPT = "adopt"  # settle this delivery later, in place of an older one
    SUBMIT = "submit"  # give it to the engine
    PUBLISH = "publish"  # send its answer
    PUBLISH_LATER = "publish-later"  # send its answer again, after a moment
    TELL = "tell"  # its answer is that it had begun and did not end
    CANCEL = "cancel"  # have the engine stop it
    REMEMBER = "remember"  # for a while, that it was cancelled
    TELL_CANCELLED = "tell-cancelled"  # its answer is that it was cancelled
    ACK = "ack"  # end its delivery: the answer is with the broker
    KEEP = "keep"  # end its delivery: write it to the disk whole
    REQUEUE = "requeue"  # end its delivery: the broker shall deliver it again
    DISOWN = "disown"  # forget its delivery: the broker has taken it back


A, S, E = Action, State, Event

TRANSITIONS: Final[dict[tuple[State | None, Event], tuple[State, tuple[Action, ...]]]] = {
    # what the last process has left
    (None, E.FOUND_STARTED): (S.INTERRUPTED, ()),
    (None, E.FOUND_RESULT): (S.PUBLISHING, (A.PUBLISH,)),
    (None, E.FOUND_CANCELLED): (S.WITHDRAWN, ()),
    (None, E.FOUND_ANSWERED): (S.ANSWERED, ()),
    # deliveries
    (None, E.ARRIVED): (S.HELD, (A.ADOPT,)),
    (S.HELD, E.ARRIVED): (S.HELD, (A.ADOPT,)),
    (S.SUBMITTED, E.ARRIVED): (S.SUBMITTED, (A.ADOPT,)),
    (S.STARTED, E.ARRIVED): (S.STARTED, (A.ADOPT,)),
    (S.PUBLISHING, E.ARRIVED): (S.PUBLISHING, (A.ADOPT,)),
    (S.ANSWERED, E.ARRIVED): (S.ANSWERED, (A.ADOPT, A.ACK)),
    (S.CANCELLING, E.ARRIVED): (S.CANCELLING, (A.ADOPT,)),
    (S.INTERRUPTED, E.ARRIVED): (S.PUBLISHING, (A.ADOPT, A.TELL)),
    (S.WITHDRAWN, E.ARRIVED): (S.PUBLISHING, (A.ADOPT, A.TELL_CANCELLED)),
    # to the engine and back
    (S.HELD, E.ROOM): (S.SUBMITTED, (A.SUBMIT,)),
    (S.HELD, E.REFUSED): (S.PUBLISHING, (A.PUBLISH,)),
    (S.SUBMITTED, E.REFUSED): (S.PUBLISHING, (A.PUBLISH,)),
    (S.SUBMITTED, E.STARTED): (S.STARTED, ()),
    (S.SUBMITTED, E.RESULT): (S.PUBLISHING, (A.PUBLISH,)),
    (S.STARTED, E.RESULT): (S.PUBLISHING, (A.PUBLISH,)),
    (S.SUBMITTED, E.NOT_BEGUN): (S.HELD, ()),
    (S.SUBMITTED, E.ENGINE_GONE): (S.HELD, ()),
    (S.STARTED, E.LOST): (S.PUBLISHING, (A.TELL,)),
    # cancellation; whichever is first, the engine's answer or ours, is the only one
    (None, E.CANCEL): (S.WITHDRAWN, (A.REMEMBER,)),
    (S.WITHDRAWN, E.CANCEL): (S.WITHDRAWN, ()),
    (S.WITHDRAWN, E.FORGET): (S.FORGOTTEN, ()),
    (S.HELD, E.CANCEL): (S.PUBLISHING, (A.TELL_CANCELLED,)),
    (S.SUBMITTED, E.CANCEL): (S.CANCELLING, (A.CANCEL,)),
    (S.STARTED, E.CANCEL): (S.CANCELLING, (A.CANCEL,)),
    (S.CANCELLING, E.CANCEL): (S.CANCELLING, ()),
    (S.PUBLISHING, E.CANCEL): (S.PUBLISHING, ()),
    (S.ANSWERED, E.CANCEL): (S.ANSWERED, ()),
    (S.INTERRUPTED, E.CANCEL): (S.INTERRUPTED, ()),
    (S.CANCELLING, E.CANCELLED): (S.PUBLISHING, (A.PUBLISH,)),
    (S.CANCELLING, E.RESULT): (S.PUBLISHING, (A.PUBLISH,)),
    (S.CANCELLING, E.NOT_BEGUN): (S.PUBLISHING, (A.TELL_CANCELLED,)),
    (S.CANCELLING, E.ENGINE_GONE): (S.PUBLISHING, (A.TELL_CANCELLED,)),
    # answers
    (S.PUBLISHING, E.CONFIRMED): (S.ANSWERED, (A.ACK,)),
    (S.PUBLISHING, E.UNPUBLISHED): (S.PUBLISHING, (A.PUBLISH_LATER,)),
    # the broker's patience; a task that still waits may as well wait there, and comes back at once
    (S.HELD, E.DEADLINE): (S.HELD, (A.REQUEUE,)),
    (S.SUBMITTED, E.DEADLINE): (S.SUBMITTED, (A.KEEP,)),
    (S.STARTED, E.DEADLINE): (S.STARTED, (A.KEEP,)),
    (S.CANCELLING, E.DEADLINE): (S.CANCELLING, (A.KEEP,)),
    (S.PUBLISHING, E.DEADLINE): (S.PUBLISHING, (A.KEEP,)),
    # the connection
    (S.HELD, E.BROKER_GONE): (S.HELD, (A.DISOWN,)),
    (S.SUBMITTED, E.BROKER_GONE): (S.SUBMITTED, (A.DISOWN,)),
    (S.STARTED, E.BROKER_GONE): (S.STARTED, (A.DISOWN,)),
    (S.CANCELLING, E.BROKER_GONE): (S.CANCELLING, (A.DISOWN,)),
    (S.PUBLISHING, E.BROKER_GONE): (S.PUBLISHING, (A.DISOWN,)),
    # the end
    (S.HELD, E.STOP): (S.HANDED_BACK, (A.REQUEUE,)),
}

CLOSED: Final = frozenset(
    {S.ANSWERED, S.INTERRUPTED, S.WITHDRAWN, S.FORGOTTEN, S.HANDED_BACK}
)  # nothing of them is here


class UnexpectedEvent(EndpointError):
    """An event that the table does not have for the task's state: a mistake of ours, never of the network's."""

    code = "UNEXPECTED_TASK_EVENT"


class TaskTable:
    """The states of the tasks that this user endpoint knows."""

    def __init__(self, answered_kept: int = ANSWERED_KEPT) -> None:
        self._open: dict[str, State] = {}
        self._to_come: dict[str, State] = {}  # the interrupted and the withdrawn ones
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._answered_kept = answered_kept
        self.received = 0
        self.answered = 0

    def __len__(self) -> int:
        """How many tasks are here and not answered yet."""
        return len(self._open)

    def __iter__(self) -> Iterator[str]:
        """The ids of the tasks that are here and not answered yet."""
        return iter(list(self._open))

    def state(self, task_id: str) -> State | None:
        """The state of a task; None for one that is not known (any more)."""
        found = self._open.get(task_id)
        if found is None:
            if task_id in self._answered:
                return S.ANSWERED
            return self._to_come.get(task_id)
        return found

    def within(self, *states: State) -> list[str]:
        """The ids of the tasks in one of `states`, the oldest first."""
        return [task_id for task_id, state in self._open.items() if state in states]

    def counts(self) -> dict[str, int]:
        """How many tasks are in which state, those that are not answered yet."""
        return {state.value: number for state, number in Counter(self._open.values()).items()}

    def happened(self, task_id: str, event: Event) -> tuple[Action, ...]:
        """Move a task on; returns what to do. Raises UnexpectedEvent, and changes nothing, for a missing entry."""
        before = self.state(task_id)
        try:
            after, actions = TRANSITIONS[before, event]
        except KeyError:
            state = before.value if before else "unknown"
            raise UnexpectedEvent(f"Task {task_id} is {state}: '{event.value}' can't happen to it") from None
        if after is not before:
            self._move(task_id, after)
        elif after is S.ANSWERED:
            self._answered.move_to_end(task_id)
        return actions

    def _move(self, task_id: str, after: State) -> None:
        was_open = task_id in self._open
        self._to_come.pop(task_id, None)
        if after in CLOSED:
            if was_open:
                del self._open[task_id]
                self.answered += after is S.ANSWERED
                self.received -= after is S.HANDED_BACK
            self._remember(task_id, after)
        else:
            self._open[task_id] = after
            self.received += not was_open

    def _remember(self, task_id: str, after: State) -> None:
        if after in (S.INTERRUPTED, S.WITHDRAWN):
            self._to_come[task_id] = after
        elif after is S.ANSWERED:
            self._answered[task_id] = None
            if len(self._answered) > self._answered_kept:
                self._answered.popitem(last=False)
