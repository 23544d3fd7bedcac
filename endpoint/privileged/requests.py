"""What a manager may ask of its monitor: a closed table.

`docs/privileges.md` has the same table in words. A request that is not here, that comes out of turn, or that has other
fields or descriptors than these is not answered: it ends the session, since our own manager never sends one.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from endpoint.errors import EndpointError, ExitStatus, Stage
from endpoint.privileged.channel import Packet

VERSION = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LONGEST_NOTE = 16 * 1024  # bytes
LONGEST_TEXT = 1024  # bytes
LARGEST_RECORD = 4 * 1024  # bytes of its keys and values
MOST_RECORD_FIELDS = 64
LARGEST_WHOLE_NUMBER = 2**53
_RECORD_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Phase(enum.Enum):
    """How far a session has come."""

    GREETING = "before hello"
    OPEN = "after hello"


class BadRequest(EndpointError):
    """A request that the table does not have like this."""

    exit_status = ExitStatus.BAD_REQUEST
    stage = Stage.COMMAND
    code = "BAD_REQUEST"


class Field(Protocol):
    """What a field must be."""

    def problem(self, value: Any) -> str | None:
        """Why `value` can't be this field's, or None."""


@dataclass(frozen=True)
class Text:
    """A text of at most so many bytes; of a form, where there is one."""

    longest: int = LONGEST_TEXT
    form: re.Pattern[str] | None = None

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, str):
            return "is no text"
        length = _length(value)
        if length is None:
            return "is no Unicode text"
        if length > self.longest:
            return f"is longer than {self.longest} bytes"
        if self.form is not None and not self.form.fullmatch(value):
            return "does not have its form"
        return None


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[str | int, ...]

    def problem(self, value: Any) -> str | None:
        known = type(value) in (str, int) and value in self.values
        return None if known else f"is none of {', '.join(map(str, self.values))}"


@dataclass(frozen=True)
class Record:
    """An object of texts and numbers, without anything nested."""

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, dict) or len(value) > MOST_RECORD_FIELDS:
            return f"is no object of at most {MOST_RECORD_FIELDS} fields"
        size = 0
        for key, item in value.items():
            if not _RECORD_KEY.fullmatch(key):
                return "has a key that does not have its form"
            if not (item is None or isinstance(item, (str, int, float))):
                return f"has something else than a text or a number in {key}"
            length = _length(item) if isinstance(item, str) else 0
            if length is None or (type(item) is int and abs(item) > LARGEST_WHOLE_NUMBER):
                return f"has a text or a number in {key} that can't be kept"
            size += len(key) + length
        return None if size <= LARGEST_RECORD else f"is larger than {LARGEST_RECORD} bytes"


@dataclass(frozen=True)
class Request:
    """One line of the table; `handler` is the name of the session's method."""

    phase: Phase
    handler: str
    fields: Mapping[str, Field]
    descriptors: int = 0


_NAME = Text(128, NAME)

REQUESTS: Final[Mapping[str, Request]] = {
    "hello": Request(Phase.GREETING, "hello", {"version": OneOf((VERSION,))}),
    "start": Request(
        Phase.OPEN,
        "start",
        {
            "name": _NAME,
            "user": Text(),
            "identity": Text(),
            "identity_name": Text(),
            "mapped_by": Text(),
            "note": Text(LONGEST_NOTE),
        },
        descriptors=1,
    ),
    "signal": Request(Phase.OPEN, "signal", {"name": _NAME, "signal": OneOf(("TERM", "KILL"))}),
    "credentials": Request(Phase.OPEN, "credentials", {"name": _NAME}, descriptors=1),
    "list": Request(Phase.OPEN, "list", {}),
    "audit": Request(Phase.OPEN, "audit", {"record": Record()}),
    "ready": Request(Phase.OPEN, "ready", {}),
    "alive": Request(Phase.OPEN, "alive", {}),
}


def checked(packet: Packet, phase: Phase) -> tuple[Request, dict[str, Any]]:
    """The line of the table that a packet is for, and its fields; raises BadRequest."""
    fields = dict(packet.message)
    kind = fields.pop("request", None)
    request = REQUESTS.get(kind) if isinstance(kind, str) else None
    if request is None:
        raise BadRequest("The manager sent a request that is not in the table")
    if request.phase is not phase:
        raise BadRequest(f"The manager sent '{kind}' out of turn, {phase.value}")
    if fields.keys() != request.fields.keys():
        raise BadRequest(f"The manager sent '{kind}' with other fields than it has")
    if len(packet.descriptors) != request.descriptors:
        raise BadRequest(f"The manager sent '{kind}' with {len(packet.descriptors)} descriptors")
    for name, field in request.fields.items():
        if (problem := field.problem(fields[name])) is not None:
            raise BadRequest(f"The manager sent '{kind}' whose {name} {problem}")
    return request, fields


def _length(text: str) -> int | None:
    """How many bytes a text has in UTF-8; None for half of a character."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None
