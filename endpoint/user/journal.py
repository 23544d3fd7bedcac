"""What a user endpoint writes down of its tasks, so that the next process knows what this one has done.

Lines in files of the directory `journal`:

    S ID TIME HOST        the task begins (seconds since 1970); written before a worker calls the function
    C ID                  the task was cancelled; written before the engine is told to stop it
    R ID LENGTH BODY      its answer, before it is published; no answer has a newline in it
    D ID                  the broker has confirmed the answer; written before the delivery is acknowledged

The endpoint writes into files that it has mapped into its memory: no system call for a line, and a process that is
killed loses none, since the kernel has them. A process of the process engine writes its `S` lines in the same way, into
a page of its own. Parsl's workers add theirs to a file beside each segment, each with one call, and a newline first, in
case that a full disk has cut off the line before.

Nothing is forced to the disk (`sync` does that): when a machine loses its power the broker still has every task that
is not answered. The files are segments. A new one is begun when one is full, with all the space that it will need; an
old one is removed, or used again, when all of its tasks are answered, the newest of those excepted: their
acknowledgements may still be on the way.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from endpoint.engines.marks import GATE, forget, lines_of, make_page, start_line
from endpoint.user.segment import Segment

log = logging.getLogger(__name__)

SEGMENT_BYTES = 1024 * 1024
SMALL_SEGMENT_BYTES = 64 * 1024  # where a disk is nearly full
LINES_IN_A_SEGMENT = 3  # at least, also of large answers
SEGMENTS_KEPT = 1  # complete ones, beside the one that is written
SPARE, LARGEST_SPARE_BYTES = 1, 16 * 1024 * 1024  # segments for another use
PAGE = ".page"
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
    cancelled: bool = False
    answer: bytes | None = None
    done: bool = False


class Journal:
    """The journal of one endpoint's directory. `started` may be called from any thread, the rest from one only.

    found: what the last process has left, the oldest first; the caller may empty it.
    full_since: since when (seconds since 1970) the disk has no space; None when it has.
    """

    wants_places = False

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Read what is there, and begin a new segment. Raises OSError."""
        self._directory = directory
        self._size = segment_bytes
        self._host = socket.gethostname()
        self._lock = threading.Lock()
        self._closing = False
        self._segment_of: dict[str, Segment] = {}
        self._pages: dict[str, mmap.mmap] = {}
        self._places: dict[str, tuple[mmap.mmap, int]] = {}  # where the marks are of tasks that are not settled
        self.full_since: float | None = None
        directory.mkdir(mode=0o700, exist_ok=True)
        old = sorted(directory.glob("*.*"))
        self.found = _read(old)
        self._number = max((int(path.stem) for path in old), default=0)
        self._kept: list[Segment] = []
        self._spare: list[Segment] = []
        carried = self._carried()
        self._current = self._new_segment(sum(map(len, carried)))
        for line in carried:
            self._current.add(line)
        for task_id in (one for one, found in self.found.items() if not found.done):
            self.submitted(task_id)
        self._current.sync()
        for path in old:
            path.unlink()
        (directory / GATE).touch(mode=0o600)

    @property
    def path(self) -> str:
        """The file that a worker adds its marks to, for tasks that are submitted now."""
        return str(self._current.marks)

    # -- writing -----------------------------------------------------------------------------------------------------

    def submitted(self, task_id: str) -> None:
        """A task goes to the engine: the present segment stays until it is answered."""
        with self._lock:
            self._keep_for(task_id)

    def started(self, task_id: str) -> bool:
        """Whether a task may begin; if so that is written. False while the disk is full, and behind the closed gate."""
        return not self._closing and self._write(task_id, start_line(task_id, time.time(), self._host))

    def placed(self, task_id: str, host: str, block: str) -> None:
        """Nothing: where a task runs is of no use to the next process."""

    def new_page(self) -> str:
        """A file in which one worker process notes its starts; see `worker.starts.Page`. Raises OSError."""
        with self._lock:
            self._number += 1
            path = str(self._directory / f"{self._number:08}{PAGE}")
        self._pages[path] = make_page(path)
        return path

    def begun_as(self, task_id: str, page: str, number: int) -> None:
        """An answered task was the `number`th (from 0) of the process with that page, where its mark can be found."""
        if page in self._pages:
            self._places[task_id] = (self._pages[page], number)

    def drop_page(self, path: str) -> None:
        """The process is gone, and what it had begun is answered, or noted by `started`."""
        self._pages.pop(path, None)
        with contextlib.suppress(OSError):
            Path(path).unlink()

    def cancelled(self, task_id: str) -> None:
        """A task is not to be run (again), and is to be answered with that. It need not be here yet."""
        self._write(task_id, b"C %s\n" % task_id.encode())

    def answered(self, task_id: str, body: bytes) -> None:
        """A task has an answer, which is to be published. A full disk is no hindrance: the answer is in memory."""
        if b"\n" not in body:
            self._write(task_id, f"R {task_id} {len(body)} ".encode(), body, b"\n")

    def done(self, task_id: str) -> None:
        """The broker has confirmed a task's answer."""
        self._write(task_id, b"D %s\n" % task_id.encode())
        if place := self._places.pop(task_id, None):
            forget(*place)  # the line above goes with its segment, the mark would stay
        self.handed_back(task_id)

    def handed_back(self, task_id: str) -> None:
        """Nobody will ask for the task here again."""
        with self._lock:
            segment = self._segment_of.pop(task_id, None)
            if segment is not None:
                segment.open -= 1

    def has_space(self) -> bool:
        """Whether a mark can be written (again)."""
        return self.full_since is None or self._begin_segment(0)

    def sync(self) -> None:
        """Force what is written to the disk."""
        self._current.sync()

    def close_gate(self) -> None:
        """From now on nothing begins."""
        self._closing = True
        with contextlib.suppress(OSError):
            (self._directory / GATE).unlink()

    def close(self) -> None:
        """Close the files; what they say stays."""
        with self._lock:
            self._closing = True
            for spare in self._spare:
                spare.remove()
            for segment in [*self._kept, self._current]:
                segment.close()

    # -- reading -----------------------------------------------------------------------------------------------------

    def refresh(self) -> dict[str, list[Mark]]:
        """All starts of the tasks that are not answered, those that workers have written too."""
        found = _read(sorted(self._directory.glob("*.*")))
        return {task_id: one.starts for task_id, one in found.items() if one.starts and not one.done}

    # -- segments ----------------------------------------------------------------------------------------------------

    def _write(self, task_id: str, *parts: bytes) -> bool:
        """Add a task's line to the present segment, or to a new one; False when the disk has no space for that."""
        with self._lock:
            if self._current.add(*parts):
                self._keep_for(task_id)
                return True
            if self._current.closed:
                return False
        return self._begin_segment(sum(map(len, parts))) and self._write(task_id, *parts)

    def _keep_for(self, task_id: str) -> None:
        """Its newest line is in the present segment; that says all that its older ones did."""
        before = self._segment_of.get(task_id)
        if before is not self._current:
            if before is not None:
                before.open -= 1
            self._segment_of[task_id] = self._current
            self._current.open += 1

    def _begin_segment(self, needed: int) -> bool:
        with self._lock:
            try:
                segment = self._new_segment(needed)
            except OSError as error:
                if self.full_since is None:
                    self.full_since = time.time()
                    log.error("The journal in %s can't be written: %s. Tasks wait until it can", self._directory, error)
                return False
            if self.full_since is not None:
                log.warning("The journal in %s can be written again", self._directory)
                self.full_since = None
            self._kept.append(self._current)
            self._current = segment
            self._free_segments()
            return True

    def _free_segments(self) -> None:
        """Segments that nobody needs: a few of them are used again, as long as they are not large."""
        for free in [one for one in self._kept[:-SEGMENTS_KEPT] if one.open == 0]:
            self._kept.remove(free)
            if len(self._spare) < SPARE and free.size <= LARGEST_SPARE_BYTES:
                self._spare.append(free)
            else:
                free.remove()

    def _new_segment(self, needed: int) -> Segment:
        self._number += 1
        path = self._directory / f"{self._number:08}.log"
        for spare in self._spare:
            if spare.size > needed:
                self._spare.remove(spare)
                spare.reuse(path)
                return spare
        while self._spare:
            self._spare.pop().remove()
        try:
            return Segment(path, max(self._size, LINES_IN_A_SEGMENT * needed))
        except OSError:
            return Segment(path, max(min(self._size, SMALL_SEGMENT_BYTES), needed + 1))

    def _carried(self) -> list[bytes]:
        """The lines that still count, for the new segment."""
        answered = [task_id for task_id, one in self.found.items() if one.done]
        for task_id in answered[:-REMEMBERED]:
            del self.found[task_id]
        lines: list[bytes] = []
        for task_id, one in self.found.items():
            if one.done:
                lines.append(f"D {task_id}\n".encode())
                continue
            lines += [start_line(task_id, mark.time, mark.host) for mark in one.starts]
            if one.cancelled:
                lines.append(f"C {task_id}\n".encode())
            if one.answer is not None:
                lines.append(f"R {task_id} {len(one.answer)} ".encode() + one.answer + b"\n")
        return lines


def _read(paths: list[Path]) -> dict[str, Found]:
    """What is written in segments, in the order of their lines; a line that is cut off says nothing."""
    found: dict[str, Found] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            for line in _lines(path):
                kind, _, rest = line.partition(b" ")
                if reader := _READERS.get(kind):
                    with contextlib.suppress(ValueError):
                        reader(found, rest)
    return found


def _lines(path: Path) -> Iterable[bytes]:
    content = path.read_bytes()
    return lines_of(content) if path.suffix == PAGE else content.partition(b"\0")[0].split(b"\n")[:-1]


def _read_start(found: dict[str, Found], rest: bytes) -> None:
    task_id, when, host = rest.decode().split(" ")
    found.setdefault(task_id, Found()).starts.append(Mark(float(when), host))


def _read_cancelled(found: dict[str, Found], rest: bytes) -> None:
    found.setdefault(rest.decode(), Found()).cancelled = True


def _read_answer(found: dict[str, Found], rest: bytes) -> None:
    task_id, length, body = rest.split(b" ", 2)
    if len(body) == int(length):
        found.setdefault(task_id.decode(), Found()).answer = body


def _read_done(found: dict[str, Found], rest: bytes) -> None:
    entry = found.setdefault(rest.decode(), Found())
    entry.done, entry.answer = True, None


_READERS: dict[bytes, Callable[[dict[str, Found], bytes], None]] = {
    b"S": _read_start,
    b"C": _read_cancelled,
    b"R": _read_answer,
    b"D": _read_done,
}
