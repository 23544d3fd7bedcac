"""A file of the journal, mapped into memory: adding a line is a copy, and needs no system call."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path


class Segment:
    """Lines, and a zero byte behind them; what comes after that byte may be left from an earlier use.

    open: how many tasks need it. marks: the file beside it, for the lines of worker processes.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Make the file with all of its space: a full disk shows itself here, and never later. Raises OSError."""
        self.path = path
        self.marks = path.with_suffix(".marks")
        self.open = 0
        self.size = size
        self._end = 0
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
                self._map: mmap.mmap | None = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
            self.marks.touch(mode=0o600)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    @property
    def closed(self) -> bool:
        """Whether nothing can be added any more."""
        return self._map is None

    def add(self, first: bytes, *rest: bytes) -> bool:
        """Write a line, given in parts; False where there is no place for all of it.

        Its first byte is written last: a process that is killed leaves a line whole, or not at all.
        """
        mapped, begin = self._map, self._end
        position = begin + len(first)
        end = position + sum(map(len, rest))
        if mapped is None or end >= self.size:
            return False
        mapped[end] = 0
        for part in rest:
            mapped[position : position + len(part)] = part
            position += len(part)
        mapped[begin + 1 : begin + len(first)] = first[1:]
        mapped[begin] = first[0]
        self._end = end
        return True

    def reuse(self, path: Path) -> None:
        """Be an empty segment under another name: its pages are there already, which takes most of a new one's time.

        Raises OSError.
        """
        if self._map is None:
            raise OSError("it is closed")
        self._map[0] = 0
        self._end = 0
        self.path.rename(path)
        self.path = path
        self.marks.unlink(missing_ok=True)  # a worker that has the old name must not begin anything
        self.marks = path.with_suffix(".marks")
        self.marks.touch(mode=0o600)

    def sync(self) -> None:
        """Force it to the disk."""
        if self._map is not None:
            with contextlib.suppress(OSError):
                self._map.flush()

    def close(self) -> None:
        """Unmap it, and give back the space that it does not need."""
        if self._map is not None:
            self._map.close()
            self._map = None
            with contextlib.suppress(OSError):
                os.truncate(self.path, self._end)

    def remove(self) -> None:
        """It is needed no more."""
        self.close()
        for path in (self.path, self.marks):
            with contextlib.suppress(OSError):
                path.unlink()
