"""When tasks begin in worker processes: the marks that these write for the journal, read as they come.

A worker of Parsl's adds two lines with one call, `B ID BLOCK` and `S ID TIME HOST`, to the file that was the journal's
when its task was submitted; a file is read for as long as one of its tasks is under way. A process of the process
engine has a page, with its newest starts in places of their own (`endpoint.worker.starts`).
"""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from endpoint.engines.marks import LINE_BYTES, PAGE_BYTES, PAGE_LINES
from endpoint.user.journal import Journal

READ_BYTES: Final = 256 * 1024  # at once; what is behind that is read the next time


@dataclass(frozen=True)
class Begun:
    """A mark: seconds since 1970, the host, the block; empty where that is not known."""

    task_id: str
    time: float
    host: str
    block: str = ""


class Marks:
    """The files of marks of one journal, those that are still of interest. For any thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._files: dict[str, _MarkFile] = {}
        self._file_of: dict[str, _MarkFile] = {}
        self._pages: dict[str, _Page] = {}
        self._left: list[Begun] = []  # by processes that are gone

    @property
    def waiting(self) -> bool:
        """Whether a task is under way."""
        return bool(self._file_of)

    def path(self) -> str:
        """See `Journal.path`."""
        with self._lock:
            return self._present().path

    def new_page(self) -> str:
        """See `Journal.new_page`. Raises OSError."""
        path = self._journal.new_page()
        with self._lock, suppress(OSError, ValueError):
            self._pages[path] = _Page(path)
        return path

    def begun_as(self, task_id: str, page: str, number: int) -> None:
        """See `Journal.begun_as`."""
        self._journal.begun_as(task_id, page, number)

    def drop_page(self, path: str) -> None:
        """See `Journal.drop_page`."""
        with self._lock:
            page = self._pages.pop(path, None)
            if page is not None:
                self._left += page.new()
                page.close()
        self._journal.drop_page(path)

    def submitted(self, task_id: str) -> None:
        """A task goes to the engine; its mark, if there is one, may come into the present file."""
        self.done(task_id)
        with self._lock:
            self._file_of[task_id] = file = self._present()
            file.tasks += 1

    def done(self, task_id: str) -> None:
        """A task's mark is of no more interest."""
        with self._lock:
            file = self._file_of.pop(task_id, None)
            if file is not None:
                file.tasks -= 1
                if file.tasks == 0 and file.path != self._journal.path:
                    del self._files[file.path]
                    file.close()

    def new(self) -> list[Begun]:
        """The marks that were added since the last look."""
        with self._lock:
            found, self._left = self._left, []
            for page in self._pages.values():
                found += page.new()
            for file in self._files.values():
                found += file.new()
            return found

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for page in self._pages.values():
                page.close()
            for file in self._files.values():
                file.close()
            self._files, self._file_of, self._pages = {}, {}, {}

    def _present(self) -> _MarkFile:
        path = self._journal.path
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = _MarkFile(path)
        return file


class _MarkFile:
    """What Parsl's workers add to. It may be removed while it is read, which makes no difference to who has it open."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.tasks = 0
        self._offset = 0
        self._descriptor: int | None = None
        with suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def new(self) -> list[Begun]:
        if self._descriptor is None:
            return []
        try:
            whole, newline, _ = os.pread(self._descriptor, READ_BYTES, self._offset).rpartition(b"\n")
        except OSError:
            return []
        self._offset += len(whole) + len(newline)
        found: list[Begun] = []
        block = ("", "")
        for words in (line.split(" ") for line in whole.decode(errors="replace").split("\n")):
            if words[0] == "B" and len(words) == 3:
                block = (words[1], words[2])
            elif mark := _mark(words, block):
                found.append(mark)
        return found

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Page:
    """The page of one process. Its places are filled in turn, so what is new begins where the last look ended."""

    def __init__(self, path: str) -> None:
        """Raises OSError, ValueError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, PAGE_BYTES, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        self._seen = [b""] * PAGE_LINES
        self._place = 0

    def new(self) -> list[Begun]:
        found: list[Begun] = []
        for _ in range(PAGE_LINES):
            begin = self._place * LINE_BYTES
            line = self._map[begin : begin + LINE_BYTES]
            if line[:1] != b"S" or line == self._seen[self._place]:
                break
            self._seen[self._place] = line
            self._place = (self._place + 1) % PAGE_LINES
            if mark := _mark(line.partition(b"\n")[0].decode(errors="replace").split(" "), ("", "")):
                found.append(mark)
        return found

    def close(self) -> None:
        self._map.close()


def _mark(words: list[str], block: tuple[str, str]) -> Begun | None:
    """A start; `block` is what the last line before it says, of which task."""
    if words[0] != "S" or len(words) != 4:
        return None
    try:
        return Begun(words[1], float(words[2]), words[3], block[1] if block[0] == words[1] else "")
    except ValueError:
        return None
