"""Log lines of the privileged processes, in the form of `endpoint/logs.py`, without what that needs.

They go to standard error: the terminal, the journal, or the file that the service manager chose. One line is one
write, so that lines of several processes don't mix. Texts that came from others can't look like lines of ours.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

from endpoint.errors import Failure, redact

LONGEST_LINE = 16 * 1024  # characters
LONGEST_WAIT_S = 0.2  # for room in what standard error is


def info(where: str, message: str, **fields: str | int) -> None:
    """Something that an administrator may want to know."""
    _write("INFO", where, message, fields)


def warning(where: str, message: str, **fields: str | int) -> None:
    """Something that is not as it should be, and that work goes on with."""
    _write("WARNING", where, message, fields)


def error(where: str, message: str, **fields: str | int) -> None:
    """Something that failed."""
    _write("ERROR", where, message, fields)


def failed(where: str, failure: Failure, **fields: str | int) -> None:
    """A failure, in full."""
    _write("ERROR", where, failure.for_admin(), {**fields, **failure.fields})


def _write(level: str, where: str, message: str, fields: dict[str, str | int]) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    shown = " ".join(f"{name}={value}" for name, value in fields.items() if value != "")
    first, *more = redact(message).splitlines() or [""]
    line = f"{stamp},{int(now * 1000) % 1000:03d} {level} endpoint.privileged.{where}: {_plain(first)}"
    line += f" [{_plain(redact(shown))}]" if shown else ""
    text = "\n    ".join([line, *map(_plain, more)])[:LONGEST_LINE] + "\n"
    with suppress(OSError):  # a terminal that is gone is no reason to stop
        _put(text.encode(errors="replace"))


def _put(data: bytes) -> None:
    """The manager has the same file open, and can have set it to lose what there is no room for: wait, but not long."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while True:
        try:
            os.write(2, data)
            return
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            select.select([], [2], [], left)


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
