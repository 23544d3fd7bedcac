"""What users send, wrapped so that a template writes it out as quoted text.

To a template a user's text *is* its quoted form (`x[0]` is a quotation mark), as templates of existing sites expect.
Keys of mappings are quoted the same way when they are written, but still compare and look up by their own name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from endpoint.errors import UserOptionsError

# Around user text in a rendering. Noncharacters: quoted user text is ASCII, so it can't contain them, and a template
# that does is refused.
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


class Tracked(str):
    """Text that came from a user in whole or in part; `_marked` is the same text with marks around those parts.

    (Templates can't reach names that start with an underscore.)
    """

    __slots__ = ("_marked",)
    _marked: str

    def __new__(cls, text: str, marked: str | None = None) -> Tracked:
        made = super().__new__(cls, text)
        made._marked = f"{MARKS[0]}{text}{MARKS[1]}" if marked is None else marked
        return made

    def __getitem__(self, index: Any) -> Tracked:
        return Tracked(super().__getitem__(index))


class UserText(Tracked):
    """A user's text, in its quoted form; `_raw` is the text itself."""

    __slots__ = ("_raw",)
    _raw: str

    def __new__(cls, raw: str) -> UserText:
        made: UserText = super().__new__(cls, quoted(raw))  # type: ignore[assignment]
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
    """A user's mapping; as a whole it is written as one line of YAML, and all its keys come out quoted.

    A key becomes a `UserKey`, unless it is one.
    """

    def __init__(self, items: Mapping[str, Any]) -> None:
        super().__init__({key if isinstance(key, UserKey) else UserKey(key): value for key, value in items.items()})

    def __str__(self) -> str:
        return written(self)


def written(value: Any, *, marked: bool = False) -> str:
    """A guarded value as YAML on one line; with `marked`, a mark stands at each end of every text."""
    if isinstance(value, UserList):
        return f"[{', '.join(written(item, marked=marked) for item in value)}]"
    if isinstance(value, UserMapping):
        items = (f"{written(key, marked=marked)}: {written(item, marked=marked)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    return value._marked if marked and isinstance(value, Tracked) else str(value)


def guarded(value: Any, name: str = "", depth: int = 0) -> Any:
    """`value` (JSON data) in its wrapped form; `name` is the option that it comes from, for messages.

    None becomes the word `null`. Raises UserOptionsError for what YAML can't hold.
    """
    check_value(value, name, depth)
    if isinstance(value, dict):
        return UserMapping({key: guarded(item, name, depth + 1) for key, item in value.items()})
    if isinstance(value, list):
        return UserList(guarded(item, name, depth + 1) for item in value)
    if isinstance(value, str):
        return UserText(value)
    return "null" if value is None else value


def check_value(value: Any, name: str, depth: int = 0) -> None:
    """Refuse a value, though not yet what is in it, that YAML can't hold; UserOptionsError names the option `name`."""
    problem = next(_problems(value, depth), None)
    if problem:
        raise UserOptionsError(f"The option {name!r} {problem}.")


def plain(value: Any, name: str = "", depth: int = 0) -> Any:
    """A copy of `value` (JSON data), for templates that substitute values; UserOptionsError as for `guarded`."""
    check_value(value, name, depth)
    if isinstance(value, dict):
        return {str(key): plain(item, name, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, name, depth + 1) for item in value]
    return value


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
