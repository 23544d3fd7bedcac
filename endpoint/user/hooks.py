"""What can be added beside the tasks' loop, as methods that do nothing; `audit.py` is the one that there is."""

from __future__ import annotations

from collections.abc import Callable

from endpoint.engines.base import Starts
from endpoint.errors import EndpointError
from endpoint.user.journal import Journal
from endpoint.user.tasks import TaskTable


class TaskHook:
    """Hears of tasks, in the loop's thread."""

    @property
    def has_room(self) -> bool:
        """Whether a task may begin."""
        return True

    def table(self) -> TaskTable:
        """The table that decides what happens to the tasks."""
        return TaskTable()

    def begin(
        self,
        journal: Journal,
        *,
        job_of: Callable[[str], str | None],
        on_lost: Callable[[EndpointError], None],
        on_room: Callable[[], None],
    ) -> Starts:
        """Tasks are about to come; returns what engines shall note starts with.

        job_of: the batch system's name of a block. on_lost: what to call, once, where work must not go on.
        on_room: what to call when `has_room` is true again.
        """
        del job_of, on_lost, on_room
        return journal

    def of(self, task_id: str, function_id: str) -> None:
        """A task comes, perhaps again."""

    def failed(self, task_id: str, reason: str) -> None:
        """A task is going to be refused."""

    def close(self) -> None:
        """Nothing more happens."""
