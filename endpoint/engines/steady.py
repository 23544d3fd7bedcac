"""For Parsl's own processes on a machine whose clock is set: they would take an hour's jump for an hour's silence."""

from __future__ import annotations

import time


def keep_time_steady() -> None:
    """From now on `time.time()` of this process goes on from here, whatever happens to the machine's clock."""
    behind = time.time() - time.monotonic()
    time.time = lambda: time.monotonic() + behind
