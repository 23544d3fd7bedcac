"""How often somebody may try a password."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

FREE = 5  # wrong passwords in a row before there is a wait
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 300.0
FORGET_S = 3600.0  # after so long without an attempt an account starts again
MAX_ACCOUNTS = 10_000


class Attempts:
    """Counts attempts per account; beyond some, each doubles the time until the next one is looked at.

    Names without an account are counted as well, so that the answer doesn't tell which ones have one. In memory, and
    bounded: the account that was tried longest ago is forgotten first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()  # account: attempts, time of the last one

    def begin(self, account: str) -> float:
        """Count one attempt as failed, and return 0; or the seconds to wait first, and count nothing.

        It counts before the password is looked at, so that many attempts at once are not one attempt.
        """
        now = self._clock()
        count, last = self._failed.get(account, (0, now))
        if now - last > FORGET_S:
            count = 0
        if count >= FREE:
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * (1 << min(count - FREE, 16))) - (now - last)
            if wait > 0:
                return wait
        self._failed[account] = (count + 1, now)
        self._failed.move_to_end(account)
        while len(self._failed) > MAX_ACCOUNTS:
            self._failed.popitem(last=False)
        return 0.0

    def succeeded(self, account: str) -> None:
        """The password was right: start again."""
        self._failed.pop(account, None)
