"""One process for each user endpoint: its directory's PID file, taken as a lease."""

from __future__ import annotations

import logging
import os
import select
from pathlib import Path

from endpoint.config.paths import PID
from endpoint.errors import AlreadyRunning
from endpoint.lease import Lease, open_process, read_lease

log = logging.getLogger(__name__)

LEAVING_S = 15.0  # a user endpoint whose manager is gone lets its tasks end, and says goodbye


def take_lease(directory: Path, patience_s: float = LEAVING_S) -> Lease:
    """Be the only process of the user endpoint in `directory`; raises AlreadyRunning. May block for `patience_s`.

    One that another manager has started on this host may be on its way out: its manager may have been killed, and ours
    is the next. It is waited for.
    """
    path = directory / PID
    try:
        return Lease.take(path)
    except AlreadyRunning:
        if not _is_left(path, patience_s):
            raise
    return Lease.take(path)


def _is_left(path: Path, patience_s: float) -> bool:
    """Whether the process that holds the lease is not our manager's, and has ended in time."""
    found = read_lease(path)
    if found.state != "running" or found.pid is None:
        return found.state != "elsewhere"  # it has ended just now
    process = open_process(found)
    if process is None:
        return True
    import psutil

    try:
        if psutil.Process(found.pid).ppid() == os.getppid():
            return False
        log.info("Waiting for process %d, which runs this user endpoint for another manager", found.pid)
        poller = select.poll()
        poller.register(process, select.POLLIN)
        return bool(poller.poll(patience_s * 1000))
    except psutil.NoSuchProcess:
        return True
    finally:
        os.close(process)
