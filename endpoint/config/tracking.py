"""Follows a user's text through what a template does with it.

A template can cut, join, filter and capture what users send, and official templates do: the result must be the very
text that an ordinary Jinja gives, or a comparison turns out differently. So each operation runs twice where a user's
text takes part: once for the result, and once on texts with marks in them, which tells the parts of the result that are
the user's. Where the two don't agree on the text, all of it counts as the user's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import TemplateError

from endpoint.config.user_values import MARKS, Tracked, UserList, UserMapping, written

_BALANCED = re.compile(rf"[^{''.join(MARKS)}]*(?:{MARKS[0]}[^{''.join(MARKS)}]*{MARKS[1]}[^{''.join(MARKS)}]*)*")
# How JSON and Python's repr write the marks.
_ESCAPED = {f"\\u{ord(mark):04x}": mark for mark in MARKS}
_FAILURES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, TemplateError)
DEEPEST = 40


def unmarked(text: str) -> str:
    """`text` without marks."""
    return text.replace(MARKS[0], "").replace(MARKS[1], "")


def tracked(value: Any, depth: int = 0) -> bool:
    """Whether there is text of a user's in `value`."""
    if isinstance(value, Tracked):
        return True
    if depth > DEEPEST:
        return False
    if isinstance(value, Mapping):
        return any(tracked(item, depth + 1) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple | set) and any(tracked(item, depth + 1) for item in value)


def marked(value: Any, depth: int = 0) -> Any:
    """`value` with plain marked text in the place of tracked text."""
    if isinstance(value, Tracked):
        return value._marked
    if depth > DEEPEST:
        return value
    if isinstance(value, dict):
        made: dict[Any, Any] = UserMapping({}) if isinstance(value, UserMapping) else {}
        made.update((marked(key, depth + 1), marked(item, depth + 1)) for key, item in value.items())
        return made
    if type(value) in (list, tuple, UserList):
        return type(value)(marked(item, depth + 1) for item in value)
    return value


def captured(pieces: Iterable[str]) -> str:
    """Pieces of output, marked, as one text that a template can use again."""
    whole = "".join(pieces)
    plain = unmarked(whole)
    return plain if len(plain) == len(whole) else Tracked(plain, whole)


def follow(result: Any, inputs: Iterable[Any], again: Callable[[], Any]) -> Any:
    """`result` of an operation on `inputs`, tracked where it has text of theirs.

    again: the same operation on `marked(...)` inputs.
    """
    if isinstance(result, Tracked) or not isinstance(result, str | list) or not any(map(tracked, inputs)):
        return result
    if isinstance(result, list):
        return [Tracked(item) if isinstance(item, str) and not isinstance(item, Tracked) else item for item in result]
    text = str(result)
    try:
        shown = _revived(str(again()))
    except _FAILURES:
        return Tracked(text)
    return Tracked(text, shown if unmarked(shown) == text and _BALANCED.fullmatch(shown) else None)


def output(value: Any) -> Any:
    """What a template writes for `value`: text with marks around what is a user's."""
    if isinstance(value, Tracked):
        return value._marked
    if isinstance(value, UserList | UserMapping):
        return written(value, marked=True)
    if isinstance(value, list | tuple | dict) and tracked(value):
        return follow(str(value), [value], lambda: str(marked(value)))._marked
    return value


def _revived(text: str) -> str:
    for escaped, mark in _ESCAPED.items():
        text = text.replace(escaped, mark)
    return text
