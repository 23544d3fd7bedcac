"""A process and all that it has started, found in /proc and signalled one by one.

A process group is not enough: what a function starts may make itself a group or a session of its own, and the workers
of one of Parsl's pools share theirs. A process is known by its number and the time of its start, so that a number which
is given to another process is no mistake.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 10  # of looking for what was started while the others were killed

PROC = Path("/proc")


@dataclass(frozen=True)
class _Seen:
    pid: int
    parent: int
    session: int
    started: str
    runs: bool


class Tree:
    """All of it that was seen since this object was made: also a process whose parent has ended in the meantime.

    session: whether everything in the session of that name belongs to it, too.
    """

    def __init__(self, pid: int, *, session: bool = False) -> None:
        self._root = pid
        self._session = pid if session else -1
        self._members: dict[int, str] = {}
        self.look()

    def look(self) -> None:
        """Find what has come since."""
        seen = {one.pid: one for one in _processes()}
        root = seen.get(self._root)
        if root is not None and not self._members:
            self._members[root.pid] = root.started
        here = {pid for pid, started in self._members.items() if pid in seen and seen[pid].started == started}
        children: dict[int, list[_Seen]] = {}
        for one in seen.values():
            children.setdefault(one.parent, []).append(one)
            if one.session == self._session:
                here.add(one.pid)
        todo = list(here)
        while todo:
            pid = todo.pop()
            self._members.setdefault(pid, seen[pid].started)
            for child in children.get(pid, ()):
                if child.pid not in here:
                    here.add(child.pid)
                    todo.append(child.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it to all that is known, first to the process that it began with."""
        for pid, started in list(self._members.items()):
            if (one := _look_at(pid)) is not None and one.started == started:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """Kill all of it, what is started meanwhile too."""
        for _ in range(ROUNDS):
            self.look()
            self.signal(signal.SIGKILL)
            if not self.runs:
                return

    @property
    def root_runs(self) -> bool:
        """Whether the process that it began with has not ended."""
        one = _look_at(self._root)
        return one is not None and one.runs and one.started == self._members.get(self._root)

    @property
    def runs(self) -> bool:
        """Whether a process of those that are known has not ended."""
        return any(
            (one := _look_at(pid)) is not None and one.runs and one.started == started
            for pid, started in self._members.items()
        )


def _processes() -> Iterator[_Seen]:
    for entry in os.scandir(PROC):
        if entry.name.isdigit() and (found := _look_at(int(entry.name))) is not None:
            yield found


def _look_at(pid: int) -> _Seen | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    state, parent, _group, session, *rest = stat.rpartition(")")[2].split()  # a name may have ")" in it
    return _Seen(pid, int(parent), int(session), rest[15], state not in ("Z", "X"))
