"""A circuit breaker for blocks: whether another block may be asked for, from how the last ones ended.

A block is barren when it ends before any worker of it came up. After so many barren ones in a row the breaker opens: no
block is asked for until a time has passed, and then one, the probe. The life of the breaker is `LIFE`.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

LONGEST_PAUSE_S = 600.0


class State(str, enum.Enum):
    """As it is shown in `status` and in heartbeats."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Event(str, enum.Enum):
    """What happens to the breaker."""

    WORKED = "worked"  # a worker of a block came up
    BARREN = "barren"  # a block ended before that, and it was not the last one that is allowed
    TOO_MANY = "too many"  # and it was
    PROBE = "probe"  # the pause is over, and a block was asked for


LIFE: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.WORKED): State.CLOSED,
    (State.CLOSED, Event.BARREN): State.CLOSED,
    (State.CLOSED, Event.TOO_MANY): State.OPEN,
    (State.OPEN, Event.WORKED): State.CLOSED,  # one that was under way when it opened
    (State.OPEN, Event.TOO_MANY): State.OPEN,
    (State.OPEN, Event.PROBE): State.PROBING,
    (State.PROBING, Event.WORKED): State.CLOSED,
    (State.PROBING, Event.TOO_MANY): State.OPEN,
}


class Breaker:
    """For one thread; the properties may be read by any.

    most: barren blocks in a row that open it, at least 1.
    pause_s: seconds from there to the probe; each probe that fails doubles them, up to `LONGEST_PAUSE_S`.
    """

    def __init__(self, most: int, pause_s: float, clock: Callable[[], float] = time.time) -> None:
        self._most = most
        self._first_pause = self._pause = pause_s
        self._clock = clock
        self._proven = False
        self.state = State.CLOSED
        self.barren = 0  # in a row
        self.since = clock()
        self.probe_at = 0.0

    @property
    def pausing(self) -> bool:
        """Whether no block may be asked for, not even a probe."""
        return self.state is State.OPEN and self._clock() < self.probe_at

    def allow(self, wanted: int, unproven: int) -> int:
        """How many of `wanted` blocks may be asked for while so many are there of which no worker has come up.

        Until the first block works, and after one that was barren, no more are unproven than are allowed to fail.
        """
        if self.state is State.CLOSED:
            return (
                wanted if self._proven and not self.barren else max(0, min(wanted, self._most - self.barren - unproven))
            )
        if wanted < 1 or unproven > 0 or self.pausing:
            return 0
        if self.state is State.OPEN:
            self._happened(Event.PROBE)
        return 1  # also while probing: then the last probe was given up before it could tell

    def worked(self) -> None:
        """A worker of a block came up."""
        self._proven = True
        self.barren = 0
        self._pause = self._first_pause
        self._happened(Event.WORKED)

    def was_barren(self) -> None:
        """A block ended of which no worker has come up."""
        self.barren += 1
        if self.barren < self._most and self.state is State.CLOSED:
            self._happened(Event.BARREN)
            return
        if self.state is State.PROBING:
            self._pause = min(LONGEST_PAUSE_S, 2 * self._pause)
        self.probe_at = self._clock() + self._pause
        self._happened(Event.TOO_MANY)

    def _happened(self, event: Event) -> None:
        state = LIFE[self.state, event]
        if state is not self.state:
            self.state, self.since = state, self._clock()
