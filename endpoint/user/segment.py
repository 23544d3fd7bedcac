"""A file of the journal, mapped into memory: adding a line is a copy, and needs no system call."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path


class Segment:
    """`open`: how many tasks need it. `marks`: the file beside it, for the lines of worker processes."""

    def __init__(self, path: Path, size: int) -> None:
        """Make the file with all of its space: a full disk shows itself here, and never later. Raises OSError."""
        self.path = path
        self.marks = path.with_suffix(".marks")
        self.open = 0
        self._end = 0
        self._size = size
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

    def add(self, *parts: bytes) -> bool:
        """Write a line's parts; False where there is no place for all of them."""
        mapped, position = self._map, self._end
        end = position + sum(map(len, parts))
        if mapped is None or end > self._size:
            return False
        for part in parts:
            mapped[position : position + len(part)] = part
            position += len(part)
        self._end = end
        return True

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
