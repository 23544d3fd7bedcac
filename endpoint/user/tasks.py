"""The life of a task in a user endpoint, as a table.

Everything that decides what happens to a task is here, and nothing here does any input or output: an event goes in,
the actions to take come out, and `service.py` carries them out. A task is known by its id; the broker may deliver it
more than once, so that `ARRIVED` can come in every state.

    (new) --ARRIVED--> RUNNING --RESULT or REFUSED--> PUBLISHING --CONFIRMED--> ANSWERED

A delivery is acknowledged only when its result is confirmed. When the link breaks in between, the broker delivers
the task again: it is the same task, so the new delivery takes the place of the old one and nothing runs twice.
Answered tasks are remembered (`ANSWERED_KEPT` of them), since an acknowledgement can be lost on the way as well.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from endpoint.errors import EndpointError

ANSWERED_KEPT = 10_000


class State(str, enum.Enum):
    """Where a task is; the values are what `status` prints."""

    RUNNING = "running"  # the engine has it
    PUBLISHING = "publishing"  # its result is on the way to the broker
    ANSWERED = "answered"  # the broker has confirmed its result


class Event(str, enum.Enum):
    """What can happen to a task."""

    ARRIVED = "arrived"  # a delivery
    REFUSED = "refused"  # it can't be given to the engine: an error result is the answer
    RESULT = "result"  # the engine is done with it, well or badly
    CONFIRMED = "confirmed"  # the broker has its result
    UNPUBLISHED = "unpublished"  # the broker could not keep its result


class Action(str, enum.Enum):
    """What the service does about it, in the order given."""

    ADOPT = "adopt"  # settle this delivery later, in place of an older one
    SUBMIT = "submit"  # give it to the engine
    PUBLISH = "publish"  # send its result
    PUBLISH_LATER = "publish-later"  # send its result again, after a moment
    ACK = "ack"  # settle its delivery


A, S, E = Action, State, Event

TRANSITIONS: Final[dict[tuple[State | None, Event], tuple[State, tuple[Action, ...]]]] = {
    (None, E.ARRIVED): (S.RUNNING, (A.ADOPT, A.SUBMIT)),
    (S.RUNNING, E.ARRIVED): (S.RUNNING, (A.ADOPT,)),
    (S.RUNNING, E.RESULT): (S.PUBLISHING, (A.PUBLISH,)),
    (S.RUNNING, E.REFUSED): (S.PUBLISHING, (A.PUBLISH,)),
    (S.PUBLISHING, E.ARRIVED): (S.PUBLISHING, (A.ADOPT,)),
    (S.PUBLISHING, E.CONFIRMED): (S.ANSWERED, (A.ACK,)),
    (S.PUBLISHING, E.UNPUBLISHED): (S.PUBLISHING, (A.PUBLISH_LATER,)),
    (S.ANSWERED, E.ARRIVED): (S.ANSWERED, (A.ADOPT, A.ACK)),
}


class UnexpectedEvent(EndpointError):
    """An event that the table does not have for the task's state: a mistake of ours, never of the network's."""

    code = "UNEXPECTED_TASK_EVENT"


class TaskTable:
    """The states of the tasks that this user endpoint knows."""

    def __init__(self, answered_kept: int = ANSWERED_KEPT) -> None:
        self._open: dict[str, State] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._answered_kept = answered_kept
        self.received = 0
        self.answered = 0

    def __len__(self) -> int:
        """How many tasks are not answered yet."""
        return len(self._open)

    def __iter__(self) -> Iterator[str]:
        """The ids of the tasks that are not answered yet."""
        return iter(list(self._open))

    def state(self, task_id: str) -> State | None:
        """The state of a task; None for one that is not known (any more)."""
        return self._open.get(task_id) or (S.ANSWERED if task_id in self._answered else None)

    def happened(self, task_id: str, event: Event) -> tuple[Action, ...]:
        """Move a task on; returns what to do. Raises UnexpectedEvent, and changes nothing, for a missing entry."""
        before = self.state(task_id)
        try:
            after, actions = TRANSITIONS[before, event]
        except KeyError:
            state = before.value if before else "unknown"
            raise UnexpectedEvent(f"Task {task_id} is {state}: '{event.value}' can't happen to it") from None
        self._move(task_id, before, after)
        return actions

    def _move(self, task_id: str, before: State | None, after: State) -> None:
        if before is None:
            self.received += 1
        if after is not S.ANSWERED:
            self._open[task_id] = after
            return
        self.answered += self._open.pop(task_id, None) is not None
        self._answered[task_id] = None
        self._answered.move_to_end(task_id)
        if len(self._answered) > self._answered_kept:
            self._answered.popitem(last=False)
