"""How many tasks one worker process may have at the same time: as many as it answers within a few milliseconds."""

from __future__ import annotations

SOON_S = 0.001  # sooner than another process would be awake, with its memory in the processor's caches
AHEAD_S = 0.01
MOST = 32  # a quarter of what a page holds, see `worker.starts.Page`
WEIGHT = 0.3  # of the newest task


class Pace:
    """Follows how long the tasks of one process take; one that nothing is known of may have one."""

    def __init__(self) -> None:
        self._mean: float | None = None

    @property
    def soon(self) -> int:
        """How many it answers within SOON_S, from 0 to MOST."""
        return self._within(SOON_S)

    @property
    def depth(self) -> int:
        """How many it answers within AHEAD_S, from 1 to MOST."""
        return max(1, self._within(AHEAD_S))

    def _within(self, seconds: float) -> int:
        return 0 if self._mean is None else min(MOST, int(seconds / max(self._mean, 1e-6)))

    def took(self, seconds: float, tasks: int = 1) -> None:
        """`tasks` tasks took `seconds` together. Slow ones count at once, quick ones after a while."""
        each = seconds / tasks
        if self._mean is None or each > self._mean * 4:
            self._mean = each
        else:
            self._mean += WEIGHT * (each - self._mean)
