"""Audit records as lines: the JSON form, which is chained, and the official endpoint's text form.

A JSON line begins with its number and ends with the hash of the line before it:

    {"number":7,"time":"2026-01-31T10:00:00.123Z","event":"start",...,"previous":"9f86d0..."}

The number says how many lines are missing where some are; the hash says that none was changed. Nothing here does any
input or output.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final

LONGEST_LINE: Final = 8 * 1024  # bytes, without the newline
LONGEST_KEY: Final = 64
MOST_KEYS: Final = 64
LENGTHS: Final = (2048, 256, 64)  # characters of a text; the first that makes the line short enough
ESSENTIAL: Final = ("event", "endpoint", "user_endpoint", "uid", "user", "pid", "task", "identity", "code")
RESERVED: Final = frozenset({"number", "time", "previous"})
NOTHING_BEFORE: Final = "0" * 64  # `previous` of a chain's first line

OPENED: Final = "log-opened"  # the first line of each file; `after` names the file that it continues
TORN: Final = "torn"  # the line before was cut off, by a crash or a full disk
DROPPED: Final = "dropped"  # `lines` records could not be written
SESSION_BEGIN: Final = (
    "session-begin"  # a manager begins its work; the official form has words of its own for these two
)
SESSION_END: Final = "session-end"
TASK_EVENTS: Final = frozenset({"RECEIVED", "EXEC_START", "RUNNING", "EXEC_END", "FAILED", "DROPPED"})

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_SESSION_WORDS: Final = {SESSION_BEGIN: "Begin CEP session =====", SESSION_END: "End CEP session -----"}
_HASH = re.compile(r"[0-9a-f]{64}")


def hash_of(line: bytes) -> str:
    """What the next line has as `previous`; `line` without its newline."""
    return hashlib.sha256(line).hexdigest()


def json_line(number: int, record: Mapping[str, Any], previous: str) -> bytes:
    """A record as a line, without the newline; `record` may not set the number, the time and the hash."""
    plain = {str(key)[:LONGEST_KEY]: _plain(value) for key, value in record.items() if key not in RESERVED}
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"number": number, "time": now}
    line = _encode({**head, **plain, "previous": previous}).encode()
    if len(line) <= LONGEST_LINE and len(plain) <= MOST_KEYS:
        return line
    for length in LENGTHS[1:]:
        cut = {key: _shortened(value, length) for key, value in list(plain.items())[:MOST_KEYS]}
        line = _encode({**head, **cut, "cut": True, "previous": previous}).encode()
        if len(line) <= LONGEST_LINE:
            return line
    short = {key: _shortened(plain[key], LENGTHS[-1]) for key in ESSENTIAL if key in plain}
    return _encode({**head, **short, "cut": True, "previous": previous}).encode()


def official_line(record: Mapping[str, Any]) -> bytes:
    """A record as the official endpoint's audit log has it, without the newline.

    What that log does not have is written in the same manner: the event's name, then its fields behind a dash.
    """
    plain = {key: _plain(value) for key, value in record.items() if key not in RESERVED}
    event = str(plain.pop("event", ""))
    taken = {key: plain.pop(key, None) for key in ("uid", "pid", "user_endpoint", "endpoint")}
    own = taken["user_endpoint"]
    who = f"uid={_text(taken['uid'])} pid={_text(taken['pid'])} "
    who += f"eid={_text(taken['endpoint'])}" if own is None else f"uep={_text(own)}"
    if event in _SESSION_WORDS:
        what = _SESSION_WORDS[event]
    elif event in TASK_EVENTS:
        what = task_text(event, **{name: _text(plain.get(name)) for name in ("function", "task", "block", "job")})
        what += f" - {plain['message']}" if plain.get("message") else ""
    else:
        fields = " ".join(f"{key}={_text(value)}" for key, value in plain.items() if value is not None)
        what = f"{event} - {fields}" if fields else event
    line = _one_line(f"{datetime.now().astimezone().isoformat()} {who} {what}").encode(errors="replace")
    return line[:LONGEST_LINE].decode(errors="ignore").encode()


def task_text(event: str, *, function: str = "", task: str = "", block: str = "", job: str = "") -> str:
    """What the official endpoint writes of a task, into its pipe and its log."""
    return f"fid={function} tid={task} bid={block} {f'jid={job} ' if job else ''}{event}"


def read_line(line: bytes) -> dict[str, Any] | None:
    """The record of a JSON line; None for anything else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("event"), str):
        return None
    number, previous = record.get("number"), record.get("previous")
    counted = isinstance(number, int) and not isinstance(number, bool)
    chained = isinstance(previous, str) and _HASH.fullmatch(previous) is not None
    return record if counted and chained else None


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _shortened(value, LENGTHS[0])
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _shortened(str(value), LENGTHS[0])


def _shortened(value: Any, length: int) -> Any:
    return value[: length - 1] + "…" if isinstance(value, str) and len(value) > length else value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _one_line(text: str) -> str:
    """`text` with a space for each character that can break or hide a line."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)
