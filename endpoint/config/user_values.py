"""What users send, wrapped so that a template writes it out as quoted text.

To a template a user's text *is* its quoted form (`x[0]` is a quotation mark), as templates of existing sites expect.
Keys of mappings are quoted the same way when they are written, but still compare and look up by their own name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from endpoint.errors import UserOptionsError

# Around user text in a rendering. Noncharacters: quoted user text is ASCII, so it can't contain them.
MARKS = ("\ufdd0", "\ufdd1")
DEEPEST = 32
WIDEST_INTEGER = 256  # bits
_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")


def quoted(text: str) -> str:
    """`text` as a double-quoted string on one line of ASCII, with the same meaning in YAML and in JSON-like readers."""
    return _PAIR.sub(_one_character, json.dumps(text)).replace("\x7f", "\\u007f")


def _one_character(pair: re.Match[str]) -> str:
    # YAML reads an escaped surrogate pair as two broken characters; it has an escape for the whole one.
    high, low = (int(half, 16) for half in pair.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


class UserText(str):
    """A user's text, in its quoted form; `_raw` is the text itself (templates can't reach names that start so)."""

    __slots__ = ("_raw",)
    _raw: str

    def __new__(cls, raw: str) -> UserText:
        made = super().__new__(cls, quoted(raw))
        made._raw = raw
        return made


class UserKey(UserText):
    """A key of a user's mapping: written like any user's text, equal to its own name."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other == self._raw if type(other) is str else str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._raw)


class UserList(list[Any]):
    """A user's list; as a whole it is written as one line of YAML."""

    def __str__(self) -> str:
        return written(self)


class UserMapping(dict[Any, Any]):
    """A user's mapping; as a whole it is written as one line of YAML, and all its keys come out quoted."""

    def __init__(self, items: dict[str, Any]) -> None:
        super().__init__({UserKey(key): value for key, value in items.items()})

    def __str__(self) -> str:
        return written(self)


def written(value: Any, *, marked: bool = False) -> str:
    """A guarded value as YAML on one line; with `marked`, a mark stands at each end of every text."""
    if isinstance(value, UserList):
        return f"[{', '.join(written(item, marked=marked) for item in value)}]"
    if isinstance(value, UserMapping):
        items = (f"{written(key, marked=marked)}: {written(item, marked=marked)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, UserText) and marked:
        return f"{MARKS[0]}{value}{MARKS[1]}"
    return str(value)


def guarded(value: Any, name: str = "", depth: int = 0) -> Any:
    """`value` (JSON data) in its wrapped form; `name` is the option that it comes from, for messages.

    None becomes the word `null`. Raises UserOptionsError for what YAML can't hold.
    """
    problem = next(_problems(value, depth), None)
    if problem:
        raise UserOptionsError(f"The option {name!r} {problem}.")
    if isinstance(value, dict):
        return UserMapping({key: guarded(item, name, depth + 1) for key, item in value.items()})
    if isinstance(value, list):
        return UserList(guarded(item, name, depth + 1) for item in value)
    if isinstance(value, str):
        return UserText(value)
    return "null" if value is None else value


def _problems(value: Any, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        yield "is nested too deep"
    if isinstance(value, str):
        yield from _text_problems(value)
    elif isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                yield "has a key that is not text"
            else:
                yield from _text_problems(key)
    elif isinstance(value, float) and not math.isfinite(value):
        yield "is not a finite number"
    elif isinstance(value, int) and value.bit_length() > WIDEST_INTEGER:
        yield "is too large a number"
    elif not (value is None or isinstance(value, (int, float, list))):
        yield f"has a value of a kind that can't be used ({type(value).__name__})"


def _text_problems(text: str) -> Iterator[str]:
    if any("\ud800" <= character <= "\udfff" for character in text):
        yield "has text that is not valid Unicode"
