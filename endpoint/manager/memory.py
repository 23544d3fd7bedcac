"""Memory files for documents that another process reads: no size limit of a pipe, and nobody can change them."""

from __future__ import annotations

import fcntl
import os

ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, content: bytes) -> int:
    """The descriptor of a memory file with `content`, sealed; the caller closes it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fill(descriptor, content)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, ALL_SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def fill(descriptor: int, content: bytes) -> None:
    """Make `content` the whole content; the offset stays at the beginning."""
    rest, offset = memoryview(content), 0
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
    os.ftruncate(descriptor, len(content))
