"""Lines for the system's journal, with fields to find them by: `journalctl GLOBUS_COMPUTE_TASK=UUID`.

journald's native protocol in a few lines of the standard library, since monitor and keepers have nothing else. A line
is one datagram; what is too large for one goes as a sealed memory file. Nothing is kept open, so that a process which
forks, becomes another user or closes its descriptors has nothing to think of.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

SOCKET = "/run/systemd/journal/socket"
STREAM_VARIABLE = "JOURNAL_STREAM"
NAME_VARIABLE = "GLOBUS_COMPUTE_JOURNAL"  # for a user endpoint, whose log is elsewhere: the endpoint's name
PREFIX = "GLOBUS_COMPUTE_"
PRIORITIES: Mapping[str, int] = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
LONGEST_VALUE = 64 * 1024  # bytes; longer ones are cut
LONGEST_WAIT_S = 0.2  # for room in the journal's queue
SEALS = fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_journal(environment: Mapping[str, str] = os.environ, descriptor: int = 2) -> bool:
    """Whether what is written to `descriptor` goes to the journal: $JOURNAL_STREAM is its device and inode."""
    stream = environment.get(STREAM_VARIABLE, "")
    if not stream:
        return False
    try:
        facts = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{facts.st_dev}:{facts.st_ino}"


def fields(level: str, program: str, about: Mapping[str, object]) -> dict[str, str]:
    """The fields beside the message. about: what of ours a line is about, such as `endpoint`, `user_endpoint`, `task`.

    `endpoint` and `user_endpoint` have a name and an id: an id becomes a field of its own, `..._ID`.
    """
    named = {_field(key, str(value)): str(value) for key, value in about.items() if value not in ("", None)}
    return {"PRIORITY": str(PRIORITIES.get(level, 6)), "SYSLOG_IDENTIFIER": program, **named}


def send(message: str, others: Mapping[str, str], path: str = SOCKET) -> bool:
    """Send one line; False where the journal does not take it, so that it has to go elsewhere."""
    data = b"".join(_encoded(name, value) for name, value in {"MESSAGE": message, **others}.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(LONGEST_WAIT_S)
            with suppress(OSError):
                sender.connect(path)
                sender.send(data)
                return True
            # Too large for a datagram, or the journal is not there: this tells.
            _send_as_file(sender, data)
            return True
    except OSError:
        return False


def _send_as_file(sender: socket.socket, data: bytes) -> None:
    descriptor = os.memfd_create("journal-line", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, data)
        fcntl.fcntl(descriptor, *SEALS)
        sender.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
    finally:
        os.close(descriptor)


def _field(name: str, value: str) -> str:
    suffix = "_ID" if name in ("endpoint", "user_endpoint") and _UUID.fullmatch(value) else ""
    return f"{PREFIX}{name.upper()}{suffix}"


def _encoded(name: str, value: str) -> bytes:
    """One field: on a line, or with its length where it has line breaks, so that no value can begin a field."""
    data = value.encode(errors="replace")[:LONGEST_VALUE]
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
