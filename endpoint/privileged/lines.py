"""Log lines of the privileged processes, in the form of `endpoint/logs.py`, without what that needs.

They go to standard error: the terminal, or the file that the service manager chose; where that is the journal, to the
journal itself, with fields. One line is one write, so that lines of several processes don't mix. Texts that came from
others can't look like lines of ours.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

from endpoint import journal
from endpoint.errors import Failure, redact

LONGEST_LINE = 16 * 1024  # characters
LONGEST_WAIT_S = 0.2  # for room in what standard error is
PROGRAM = "gce-monitor"  # in the journal; keepers are parts of it

_about: dict[str, str] = {}  # what all lines of this process are about


def begin(endpoint: str) -> None:
    """All lines from now on, and those of processes forked from this one, are about this endpoint."""
    _about["endpoint"] = endpoint


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
    if journal.is_journal() and _journaled(level, where, message, fields):
        return
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    head = f"{stamp},{int(now * 1000) % 1000:03d} {level} endpoint.privileged.{where}: "
    with suppress(OSError):  # a terminal that is gone is no reason to stop
        _put((_text(head, message, fields) + "\n").encode(errors="replace"))


def _text(head: str, message: str, fields: dict[str, str | int]) -> str:
    shown = " ".join(f"{name}={value}" for name, value in fields.items() if value != "")
    first, *more = redact(message).splitlines() or [""]
    line = f"{head}{_plain(first)}" + (f" [{_plain(redact(shown))}]" if shown else "")
    return "\n    ".join([line, *map(_plain, more)])[:LONGEST_LINE]


def _journaled(level: str, where: str, message: str, fields: dict[str, str | int]) -> bool:
    about = {name: _plain(redact(str(value))) for name, value in {**_about, **fields}.items()}
    others = journal.fields(level, PROGRAM, about)
    return journal.send(_text("", message, fields), {**others, "LOGGER": f"endpoint.privileged.{where}"})


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
