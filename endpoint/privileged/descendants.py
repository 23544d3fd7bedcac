"""The processes below this one, and their end.

A keeper is the subreaper of what it started: whoever loses its parent becomes its child, so that nothing can slip away
by forking twice, and no child left means no descendant left.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from endpoint.privileged import linux

END_PAUSE_S = 0.02
ROUNDS = 50  # of stopping what has come meanwhile, before everything is ended


def adopt_descendants() -> None:
    """Become the subreaper of everything below this process; raises OSError."""
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)


def reap() -> dict[int, int]:
    """The children that have ended by now: process id and wait status."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def has_children() -> bool:
    """Whether a child is left, running or not yet reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def signal_descendants(number: int) -> int:
    """Send a signal to every process below this one; returns to how many."""
    parents = _parents()
    sent = 0
    for pid in _below(os.getpid(), parents):
        sent += _send(pid, parents[pid], number)
    return sent


def kill_descendants() -> int:
    """End every process below this one; returns how many there were.

    They are stopped first, again and again until no new one comes: ended one by one, a program that forks without end
    has made as many in the time.
    """
    stopped: set[int] = set()
    for _ in range(ROUNDS):
        parents = _parents()
        new = [pid for pid in _below(os.getpid(), parents) if pid not in stopped]
        if not new:
            break
        for pid in new:
            _send(pid, parents[pid], signal.SIGSTOP)
        stopped.update(new)
    return signal_descendants(signal.SIGKILL)


def end_descendants() -> None:
    """End every process below this one, and wait for that."""
    while has_children():
        kill_descendants()
        reap()
        time.sleep(END_PAUSE_S)


def _parents() -> dict[int, int]:
    """The parent of each process of this machine."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                found[int(entry.name)] = _parent(int(entry.name))
    return found


def _parent(pid: int) -> int:
    raw = Path(f"/proc/{pid}/stat").read_bytes()
    return int(raw[raw.rfind(b")") + 2 :].split()[1])


def _below(top: int, parents: dict[int, int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = list(children.get(top, ()))
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, ())
    return found


def _send(pid: int, parent: int, number: int) -> bool:
    """Send to the process that had this parent a moment ago, and not to another one that has its id by now.

    One whose parent has just ended is our child since; it gets the signal too.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # gone
        return False
    try:
        if _parent(pid) not in (parent, os.getpid()):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
