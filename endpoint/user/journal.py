"""What a user endpoint writes down of its tasks, so that the next process knows what this one has done.

Lines in files of the directory `journal`, each written with one call, so that several processes can write; each also
begins with a newline, in case that a full disk has cut off the one before:

    S ID TIME HOST        the task begins (seconds since 1970); written before a worker calls the function
    R ID LENGTH BODY      its answer, before it is published; no answer has a newline in it
    D ID                  the broker has confirmed the answer; written before the delivery is acknowledged

A process that is killed loses none of them. They are not forced to the disk (`sync` does that): for a machine that
loses its power the broker still has every task that is not answered.

The files are segments. A new one is begun when one is large, and an old one is removed when all of its tasks are
answered, the newest of those excepted: their acknowledgements may still be on the way.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from endpoint.engines.marks import GATE, start_line

log = logging.getLogger(__name__)

SEGMENT_BYTES = 32 * 1024 * 1024
SEGMENTS_KEPT = 1  # complete ones, beside the one that is written
REMEMBERED = 10_000  # answered tasks, from one process to the next


@dataclass(frozen=True)
class Mark:
    """One start of a task: seconds since 1970, and the host."""

    time: float
    host: str


@dataclass
class Found:
    """What is written of one task."""

    starts: list[Mark] = field(default_factory=list)
    answer: bytes | None = None
    done: bool = False


class Journal:
    """The journal of one endpoint's directory. `started` may be called from any thread, the rest from one only.

    found: what the last process has left, the oldest first; the caller may empty it.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Read what is there, and begin a new segment. Raises OSError."""
        self._directory = directory
        self._limit = segment_bytes
        self._host = socket.gethostname()
        self._lock = threading.Lock()
        self._closing = False
        self._marks: dict[str, int] = {}
        self._segment_of: dict[str, _Segment] = {}
        self.full_since: float | None = None
        directory.mkdir(mode=0o700, exist_ok=True)
        old = sorted(directory.glob("*.log"))
        self.found = _read(old)
        self._number = int(old[-1].stem) if old else 0
        self._kept: list[_Segment] = []
        self._current = self._new_segment()
        self._carry_over()
        for path in old:
            path.unlink()
        (directory / GATE).touch(mode=0o600)

    @property
    def path(self) -> str:
        """The file that a worker adds its marks to, for tasks that are submitted now."""
        return str(self._current.path)

    # -- writing -----------------------------------------------------------------------------------------------------

    def submitted(self, task_id: str) -> None:
        """A task goes to the engine: the present segment stays until it is answered."""
        self._belongs(task_id)

    def started(self, task_id: str) -> bool:
        """Whether a task may begin; if so that is written. False while the disk is full, and behind the closed gate."""
        if self._closing or not self._write(self._start_line(task_id)):
            return False
        self._marks[task_id] = self._marks.get(task_id, 0) + 1
        return True

    def has_space(self) -> bool:
        """Whether a mark can be written (again)."""
        return self.full_since is None or self._write()

    def answered(self, task_id: str, body: bytes) -> None:
        """A task has an answer, which is to be published. A full disk is no hindrance: the answer is in memory."""
        self._belongs(task_id)
        if b"\n" not in body:
            self._write(f"R {task_id} {len(body)} ".encode(), body, b"\n")

    def done(self, task_id: str) -> None:
        """The broker has confirmed a task's answer."""
        self._write(f"D {task_id}\n".encode())
        self._marks.pop(task_id, None)
        segment = self._segment_of.pop(task_id, None)
        if segment is not None:
            segment.open -= 1
            if segment.open == 0:
                self._tidy()

    def handed_back(self, task_id: str) -> None:
        """A task that has not begun is with the broker again."""
        segment = self._segment_of.pop(task_id, None)
        if segment is not None:
            segment.open -= 1

    def sync(self) -> None:
        """Force what is written to the disk."""
        with contextlib.suppress(OSError):
            os.fdatasync(self._current.descriptor)

    def close_gate(self) -> None:
        """From now on nothing begins."""
        self._closing = True
        with contextlib.suppress(OSError):
            (self._directory / GATE).unlink()

    def close(self) -> None:
        """Close the files; what they say stays."""
        self._closing = True
        for segment in [*self._kept, self._current]:
            segment.close()

    # -- reading -----------------------------------------------------------------------------------------------------

    def starts(self, task_id: str) -> int:
        """How often a task has begun, as far as this process was told; see `refresh`."""
        return self._marks.get(task_id, 0)

    def refresh(self) -> dict[str, list[Mark]]:
        """Read the marks that workers have written; all starts of the tasks that are not answered."""
        found = _read([segment.path for segment in [*self._kept, self._current]])
        starts = {task_id: one.starts for task_id, one in found.items() if one.starts and not one.done}
        self._marks = {task_id: len(marks) for task_id, marks in starts.items()}
        return starts

    # -- segments ----------------------------------------------------------------------------------------------------

    def _start_line(self, task_id: str, mark: Mark | None = None) -> bytes:
        mark = mark or Mark(time.time(), self._host)
        return start_line(task_id, mark.time, mark.host)

    def _belongs(self, task_id: str) -> None:
        if task_id not in self._segment_of:
            if self._current.size > self._limit:
                self._rotate()
            self._segment_of[task_id] = self._current
            self._current.open += 1

    def _write(self, *parts: bytes) -> bool:
        """Add a line to the present segment; False, and nothing written that counts, where that can't be done."""
        with self._lock:
            segment = self._current
            length = 1 + sum(map(len, parts))
            try:
                written = os.writev(segment.descriptor, (b"\n", *parts))
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise
                written = 0
            segment.size += written
            self._note_space(enough=written == length)
            return written == length

    def _note_space(self, *, enough: bool) -> None:
        if not enough and self.full_since is None:
            self.full_since = time.time()
            log.error(
                "There is no space for %s: tasks wait until there is some again. Results are sent as before", self.path
            )
        elif enough and self.full_since is not None:
            log.warning("There is space for %s again", self.path)
            self.full_since = None

    def _rotate(self) -> None:
        try:
            segment = self._new_segment()
        except OSError as error:  # a full disk has no place for a directory entry, perhaps; the old file goes on
            log.warning("The journal can't begin a new file: %s", error.strerror)
            return
        with self._lock:
            self._kept.append(self._current)
            self._current = segment
        self._tidy()

    def _tidy(self) -> None:
        for segment in [one for one in self._kept[:-SEGMENTS_KEPT] if one.open == 0]:
            self._kept.remove(segment)
            segment.close()
            with contextlib.suppress(OSError):
                segment.path.unlink()

    def _new_segment(self) -> _Segment:
        self._number += 1
        return _Segment(self._directory / f"{self._number:08}.log")

    def _carry_over(self) -> None:
        """Write what still counts of the old segments into the new one, and make it last."""
        answered = [task_id for task_id, one in self.found.items() if one.done]
        for task_id in answered[:-REMEMBERED]:
            del self.found[task_id]
        for task_id, one in self.found.items():
            if one.done:
                self._write(f"D {task_id}\n".encode())
                continue
            self._belongs(task_id)
            for mark in one.starts:
                self._write(self._start_line(task_id, mark))
            if one.answer is not None:
                self._write(f"R {task_id} {len(one.answer)} ".encode(), one.answer, b"\n")
        if self.full_since is not None:  # the old files say it all, and stay
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        self.sync()


class _Segment:
    """One file. `open`: how many tasks need it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.open = 0
        self.size = 0

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _read(paths: list[Path]) -> dict[str, Found]:
    """What is written in segments, in the order of their lines; a line that is cut off says nothing."""
    found: dict[str, Found] = {}
    for path in paths:
        for line in _lines(path):
            kind, _, rest = line.partition(b" ")
            reader = _READERS.get(kind)
            if reader is not None and line.endswith(b"\n"):
                with contextlib.suppress(ValueError):
                    reader(found, rest[:-1])
    return found


def _lines(path: Path) -> Iterator[bytes]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        yield from file


def _read_start(found: dict[str, Found], rest: bytes) -> None:
    task_id, when, host = rest.decode().split(" ")
    found.setdefault(task_id, Found()).starts.append(Mark(float(when), host))


def _read_answer(found: dict[str, Found], rest: bytes) -> None:
    task_id, length, body = rest.split(b" ", 2)
    if len(body) == int(length):
        found.setdefault(task_id.decode(), Found()).answer = body


def _read_done(found: dict[str, Found], rest: bytes) -> None:
    entry = found.setdefault(rest.decode(), Found())
    entry.done, entry.answer = True, None


_READERS: dict[bytes, Callable[[dict[str, Found], bytes], None]] = {
    b"S": _read_start,
    b"R": _read_answer,
    b"D": _read_done,
}
