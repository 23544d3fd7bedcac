"""How workers note that tasks begin, for whoever reads it.

A page has a place for each of the newest tasks of a worker process. Behind the places is a number for each of them,
which the endpoint writes: that of the task (and one) whose line there says nothing more, as its answer is confirmed.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

from endpoint.worker.starts import GATE, LINE_BYTES, NUMBER_DIGITS, PAGE_LINES, Page, start_line

__all__ = ["GATE", "LINE_BYTES", "PAGE_BYTES", "PAGE_LINES", "Page", "forget", "lines_of", "make_page", "start_line"]

_SETTLED = struct.Struct("<Q")
_LINES_END = PAGE_LINES * LINE_BYTES
PAGE_BYTES = _LINES_END + PAGE_LINES * _SETTLED.size


def make_page(path: str) -> mmap.mmap:
    """Make an empty page, with all of its space; returns it mapped. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, PAGE_BYTES)
        return mmap.mmap(descriptor, PAGE_BYTES)
    except OSError:
        os.unlink(path)  # noqa: PTH108
        raise
    finally:
        os.close(descriptor)


def forget(page: mmap.mmap, number: int) -> None:
    """The process's `number`th task (from 0) is settled. Its place may be another task's by now."""
    _SETTLED.pack_into(page, _LINES_END + number % PAGE_LINES * _SETTLED.size, number + 1)


def lines_of(content: bytes) -> Iterator[bytes]:
    """The lines of a page that still say something, without their ends."""
    if len(content) < PAGE_BYTES:
        return
    for place in range(PAGE_LINES):
        slot = content[place * LINE_BYTES : (place + 1) * LINE_BYTES]
        number = slot[-NUMBER_DIGITS - 1 : -1]
        (settled,) = _SETTLED.unpack_from(content, _LINES_END + place * _SETTLED.size)
        if slot[:1] == b"S" and number.isdigit() and settled != int(number) + 1:
            yield slot.partition(b"\n")[0]
