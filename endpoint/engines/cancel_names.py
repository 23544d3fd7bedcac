"""How a cancellation travels: from the endpoint to its interchange, and from there to the pool that has the task.

The endpoint sends the command `(CANCEL_TASKS, NUMBERS, GRACE)`, with Parsl's numbers of the tasks; the answer is the
list of those that run in pools which can't stop them. A pool gets what looks like a task, with GRACE in `CANCEL`.
"""

from __future__ import annotations

CANCEL_TASKS = "CANCEL_TASKS"
CANCEL = "cancel"
STOPPING_POOL = "-stops"  # ends the names of the pools that understand that


class Stopped(Exception):
    """What a task fails with that was stopped. Pickled, and read in an endpoint of another version perhaps.

    seconds: how long it had run; None where it had not begun. grace: None where it ended when it was asked to, else
    how many seconds it got for that before it was killed.
    """

    def __init__(self, seconds: float | None = None, grace: float | None = None) -> None:
        super().__init__(seconds, grace)
        self.seconds = seconds
        self.grace = grace
