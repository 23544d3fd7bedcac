"""The interchange's part of a cancellation: it drops what waits with it, and tells the pools of the rest."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from parsl.app.errors import RemoteExceptionWrapper
from parsl.serialize import serialize
from sortedcontainers import SortedKeyList  # type: ignore[import-untyped]

from endpoint.engines.cancel_names import CANCEL, CANCEL_TASKS, STOPPING_POOL, Stopped
from endpoint.engines.interchange_commands import Commanded

TO_COME = 10_000  # the newest numbers that are remembered without their tasks


class Cancelling(Commanded):
    """With the command `CANCEL_TASKS`; see `cancel_names`."""

    def __init__(self, **configuration: Any) -> None:
        super().__init__(**configuration)
        self._to_come: OrderedDict[int, None] = OrderedDict()
        self.pending_task_queue = _Waiting(self._to_come, self._answer)
        self._commands[CANCEL_TASKS] = self._cancel

    def _cancel(self, numbers: list[int], grace: float) -> list[int]:
        self.read_tasks()
        wanted = set(numbers)
        wanted -= self._drop(wanted)
        can_not: list[int] = []
        for manager_id, manager in self._ready_managers.items():
            theirs = wanted.intersection(manager["tasks"])
            wanted -= theirs
            if not manager_id.endswith(STOPPING_POOL.encode()):
                can_not += theirs
            elif theirs:
                words = [{"task_id": number, CANCEL: grace} for number in sorted(theirs)]
                self.manager_sock.send_multipart([manager_id, pickle.dumps(words)])
        self._remember(wanted)
        return can_not

    def _drop(self, wanted: set[int]) -> set[int]:
        """Answer those that wait here; which they are."""
        waiting = self.pending_task_queue
        places = [place for place, entry in enumerate(waiting) if entry[-1]["task_id"] in wanted]
        dropped = {waiting[place][-1]["task_id"] for place in places}
        for place in reversed(places):
            del waiting[place]
        for number in sorted(dropped):
            self._answer(number)
        return dropped

    def _remember(self, numbers: set[int]) -> None:
        """Their answers are on the way, or they themselves are: tasks and commands come by different sockets."""
        self._to_come.update(dict.fromkeys(sorted(numbers)))
        while len(self._to_come) > TO_COME:
            self._to_come.popitem(last=False)

    def _answer(self, number: int) -> None:
        stopped = Stopped()
        exception = serialize(RemoteExceptionWrapper(Stopped, stopped, None))
        self.results_outgoing.send(pickle.dumps({"type": "result", "task_id": number, "exception": exception}))


class _Waiting(SortedKeyList):  # type: ignore[misc]
    """Parsl's list of the tasks that wait, in its order; those in `to_come` are dropped when they come."""

    def __new__(cls, *_: Any) -> _Waiting:
        return object.__new__(cls)

    def __init__(self, to_come: OrderedDict[int, None], on_dropped: Callable[[int], None]) -> None:
        super().__init__(key=lambda entry: (entry[0], entry[1]))
        self._to_come = to_come
        self._on_dropped = on_dropped

    def add(self, entry: tuple[Any, ...]) -> None:
        number = entry[-1]["task_id"]
        if number in self._to_come:
            del self._to_come[number]
            self._on_dropped(number)
        else:
            super().add(entry)
