"""Memory files that a manager hands over: sealed, so that what was looked at is what will be read.

A descriptor from the manager may be anything: a pipe, a directory, a file that is still being written. Only a memory
file with every seal passes, and neither monitor nor keeper looks at what is in it.
"""

from __future__ import annotations

import fcntl
import os
import stat

from endpoint.privileged.requests import BadRequest

LARGEST_DOCUMENT = 16 * 1024 * 1024  # bytes
LARGEST_CREDENTIALS = 1024 * 1024  # bytes
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def check_document(descriptor: int, largest: int = LARGEST_DOCUMENT) -> None:
    """Raise BadRequest unless `descriptor` is a memory file of at most `largest` bytes that nobody can change."""
    try:
        # First what only memory files have: to ask a file of a file system in user space could wait for its owner.
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        facts = os.fstat(descriptor)
    except OSError as error:
        raise BadRequest("The manager sent a descriptor that is no memory file", detail=str(error)) from error
    if not stat.S_ISREG(facts.st_mode) or seals & SEALS != SEALS:
        raise BadRequest("The manager sent a memory file that is not sealed")
    if facts.st_size > largest:
        raise BadRequest(f"The manager sent a memory file that is larger than {largest} bytes")


def opened_again(descriptor: int) -> int:
    """The same file for reading only, with an offset that is shared with nobody."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


class CredentialStore:
    """The memory file in which a user endpoint finds its broker credentials, as they are now; empty at first."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("credentials", os.MFD_CLOEXEC)
        os.fchmod(self._descriptor, 0o444)  # the user reads; a memory file would let everybody write

    def reader(self) -> int:
        """A descriptor for the user endpoint."""
        return opened_again(self._descriptor)

    def replace(self, descriptor: int) -> None:
        """Take over the content of a sealed file. Whoever reads in between sees something encrypted that is broken."""
        content = os.pread(descriptor, LARGEST_CREDENTIALS, 0)
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))
