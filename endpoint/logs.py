"""Logs: readable lines, or JSON lines, in `endpoint.log`; secrets never.

Records carry fields through `extra={"endpoint": ..., "user_endpoint": ..., "task": ...}` (see `FIELDS`); the readable
form shows them in brackets behind the message, the JSON form as keys. Where the terminal is the system's journal, it
gets them as fields of its own. A file rotates at `MAX_BYTES` and keeps `KEPT` older ones.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from endpoint import journal
from endpoint.errors import redact

MAX_BYTES = 100 * 1024 * 1024
KEPT = 2
PROGRAMS = ("globus-compute-endpoint", "compute-hub")  # in the journal
FIELDS = ("endpoint", "user_endpoint", "task", "function", "user", "stage", "code")


def set_up_logs(
    logfile: Path | None,
    *,
    debug: bool = False,
    console: bool = False,
    color: bool = True,
    json_lines: bool = False,
    process: Mapping[str, str] | None = None,
    name: str | None = None,
) -> None:
    """Send this process's log records to `logfile` (made mode 0600), and to the terminal where `console` is set.

    process: fields of all that this process logs. JSON lines and the journal have them, for whoever collects many; a
    readable file is one endpoint's anyway. name: the endpoint's name, for the journal.
    """
    handlers: list[logging.Handler] = []
    if logfile is not None:
        logfile.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not logfile.is_char_device():
            logfile.touch(mode=0o600, exist_ok=True)
        file_handler = logging.handlers.RotatingFileHandler(logfile, maxBytes=MAX_BYTES, backupCount=KEPT, delay=True)
        file_handler.setFormatter(JsonLines(process) if json_lines else ReadableLines())
        handlers.append(file_handler)
    if console or logfile is None:
        lines = JsonLines(process) if json_lines else None
        handlers.append(
            JournalHandler({"endpoint": name}, process, lines=lines)
            if journal.is_journal()
            else _console_handler(sys.stderr, color=color, json_lines=lines)
        )
    elif given := os.environ.get(journal.NAME_VARIABLE):
        # A manager or a monitor whose lines are in the journal has started this process. What is not ours stays out.
        ours = JournalHandler({"endpoint": given}, {"user_endpoint": name}, process)
        ours.addFilter(logging.Filter("endpoint"))
        handlers.append(ours)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    # Whatever pika reports as an error it also raises, and our link logs it once, in one line.
    logging.getLogger("pika").setLevel(logging.INFO if debug else logging.CRITICAL)
    for chatty in ("globus_sdk", "urllib3", "asyncio", "httpx", "httpcore", "aiosqlite"):
        logging.getLogger(chatty).setLevel(logging.INFO if debug else logging.WARNING)


class JournalHandler(logging.Handler):
    """Lines for the journal; those that it does not take go to standard error.

    about: what all lines of this process are about; see `journal.fields`.
    """

    def __init__(self, *about: Mapping[str, str | None] | None, lines: logging.Formatter | None = None) -> None:
        super().__init__()
        self._about = [one for one in about if one]
        called = Path(sys.argv[0]).name if sys.argv else ""
        self._program = called if called in PROGRAMS else PROGRAMS[0]
        self.setFormatter(lines or ShortLines())

    def emit(self, record: logging.LogRecord) -> None:
        """Send it; never raises."""
        try:
            message = self.format(record)
            fields: dict[str, str] = {}
            named = {"user_endpoint": getattr(record, "user_endpoint_name", None)}
            for about in (*self._about, named, fields_of(record)):
                fields |= journal.fields(record.levelname, self._program, about)
            code = {"CODE_FILE": record.pathname, "CODE_LINE": str(record.lineno), "CODE_FUNC": record.funcName or ""}
            if not journal.send(message, {**fields, **code, "LOGGER": record.name}):
                sys.stderr.write(f"{message}\n")
        except Exception:  # noqa: BLE001 - what goes wrong with a line is no reason to stop
            self.handleError(record)


def _console_handler(stream: TextIO, *, color: bool, json_lines: JsonLines | None) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(json_lines or (ColoredLines() if color and stream.isatty() else ReadableLines()))
    return handler


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """The fields of ours that a record carries, in the order of `FIELDS`."""
    return {name: str(getattr(record, name)) for name in FIELDS if getattr(record, name, None)}


class ReadableLines(logging.Formatter):
    """`2026-11-23 10:00:00,123 INFO endpoint.user.service: message [task=...]`."""

    def format(self, record: logging.LogRecord) -> str:
        shown = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        line = f"{self.head(record)}{record.getMessage()}"
        if shown:
            line += f" [{shown}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redact(line)

    def head(self, record: logging.LogRecord) -> str:
        """What stands before the message."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{stamp},{int(record.msecs):03d} {record.levelname} {record.name}: "


class ShortLines(ReadableLines):
    """Readable lines for the journal, which has time, level and logger itself."""

    def head(self, record: logging.LogRecord) -> str:
        return ""


class ColoredLines(ReadableLines):
    """Readable lines with the level's color, for a terminal."""

    COLORS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m", "DEBUG": "\x1b[2m"}

    def format(self, record: logging.LogRecord) -> str:
        color = self.COLORS.get(record.levelname)
        line = super().format(record)
        return f"{color}{line}\x1b[0m" if color else line


class JsonLines(logging.Formatter):
    """One JSON object a line: `time` (seconds since the epoch), `level`, `logger`, `message`, fields, `exception`."""

    def __init__(self, process: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._process = dict(process or {})

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
            **self._process,
            **fields_of(record),
        }
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, separators=(",", ":"))
