"""How many blocks a user endpoint may have, and how fast it may ask for them, whatever its configuration says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BlockLimits:
    """The administrator's, by their names in the manager's `config.yaml`, where the defaults are; None for no limit.

    max_blocks: blocks at once.
    max_blocks_per_minute: requests for blocks; so many may also come in one moment.
    """

    max_blocks: int | None = None
    max_blocks_per_minute: int | None = None

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> BlockLimits:
        """From a start document. Raises TypeError for what are no limits."""
        return cls(_number(told, "max_blocks"), _number(told, "max_blocks_per_minute"))


NO_LIMITS = BlockLimits()


def _number(told: Mapping[str, Any], name: str) -> int | None:
    value = told.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise TypeError(f"'{name}' is not a number of 1 or more")
    return value


class Bucket:
    """A minute's requests, which come back one after the other. For one thread."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._left = float(per_minute or 0)
        self._seen = clock()

    def allow(self, wanted: int) -> int:
        """How many of `wanted` requests may be made now."""
        if self._per_minute is None:
            return wanted
        now = self._clock()
        self._left = min(float(self._per_minute), self._left + (now - self._seen) * self._per_minute / 60)
        self._seen = now
        return max(0, min(wanted, int(self._left)))

    def take(self, number: int) -> None:
        """So many requests are made, which were allowed."""
        self._left -= number
