"""How much a template may do: steps, time, and the size of what it makes.

A template is the administrator's, but what it works on is a stranger's, and a mistake in it must not stop a manager.
What grows is bounded before it is made.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.exceptions import SecurityError

MOST_STEPS = 100_000  # turns of loops, calls and included files of one rendering together
MOST_SECONDS = 0.7  # of this thread's CPU time, for one rendering
LARGEST_VALUE = 1024 * 1024  # characters; an item of a list or a mapping counts as some
ITEM = 10  # characters
LARGEST_INTEGER = 4096  # bits
WIDEST = 10_000  # characters of padding or indentation, digits of rounding
_WIDE_FORMAT = re.compile(r"\d{5}|\*")


class Budget:
    """What is left for one rendering."""

    def __init__(self) -> None:
        self._steps = MOST_STEPS
        self._ends = time.thread_time() + MOST_SECONDS

    def spend(self, steps: int = 1) -> None:
        """Raises SecurityError where nothing is left."""
        self._steps -= steps
        if self._steps < 0:
            raise SecurityError(f"the loops, calls and included files of a template have at most {MOST_STEPS} steps")
        if time.thread_time() > self._ends:
            raise SecurityError(f"a template has at most {MOST_SECONDS} s of CPU time")


def check_size(*values: Any) -> int:
    """The size of all `values` together; SecurityError where it is too large."""
    total = 0
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        total += (
            len(value) if isinstance(value, str | bytes) else ITEM * len(value) if isinstance(value, range) else ITEM
        )
        if isinstance(value, int) and not isinstance(value, bool):
            _bounded(value.bit_length(), LARGEST_INTEGER)
        elif isinstance(value, Mapping):
            waiting += value.keys()
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        _bounded(total, LARGEST_VALUE)
    return total


def _weight(value: Any) -> int:
    if isinstance(value, range):
        return ITEM * len(value)
    return ITEM + len(value) if isinstance(value, str | bytes) else ITEM


def check_operation(operator: str, left: Any, right: Any) -> None:
    """SecurityError for a binary operation whose result would be too large."""
    size = check_size(left, right)
    if operator == "*":
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                _bounded(size * times, LARGEST_VALUE)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _bounded(left.bit_length() * right, LARGEST_INTEGER)
    elif operator == "%" and isinstance(left, str):
        _check_format(left)


def check_work(name: str, values: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """SecurityError for a filter or a method of texts, called `name`, whose result would be too large.

    values: the text itself, and the arguments that have no name.
    """
    size = check_size(*values, *options.values())
    estimate = _GROWTH.get(name)
    if estimate is not None:
        _bounded(estimate(size, values, options), LARGEST_VALUE)


def _bounded(size: int, most: int) -> None:
    if size > most:
        raise SecurityError("an operation would make too large a value")


def _check_format(text: str) -> None:
    if _WIDE_FORMAT.search(text):
        raise SecurityError("a format has too large a width")


Estimate = Callable[[int, tuple[Any, ...], Mapping[str, Any]], int]


def _padded(size: int, values: tuple[Any, ...], options: Mapping[str, Any]) -> int:
    """For what pads, indents or rounds: one line becomes longer by as much as an argument says."""
    numbers = [number for number in (*values[1:], *options.values()) if isinstance(number, int)]
    _bounded(max([abs(number) for number in numbers], default=0), WIDEST)
    lines = values[0].count("\n") + values[0].count("\t") + 1 if isinstance(values[0], str) else 1
    return size + lines * sum(abs(number) for number in numbers)


def _replaced(size: int, values: tuple[Any, ...], options: Mapping[str, Any]) -> int:
    text, old, new = (*map(str, values), *map(str, options.values()), "", "")[:3]
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def _joined(size: int, values: tuple[Any, ...], options: Mapping[str, Any]) -> int:
    texts = [value for value in (*values, *options.values()) if isinstance(value, str)]
    return size + size * max(map(len, texts), default=0)


def _formatted(size: int, values: tuple[Any, ...], options: Mapping[str, Any]) -> int:
    _check_format(str(values[0]))
    return size * (str(values[0]).count("{") + str(values[0]).count("%") + 1)


_GROWTH: dict[str, Estimate] = {
    **dict.fromkeys(
        ("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "round", "batch", "slice", "tojson", "truncate"),
        _padded,
    ),
    "replace": _replaced,
    **dict.fromkeys(("join", "wordwrap", "translate"), _joined),
    **dict.fromkeys(("format", "format_map"), _formatted),
}
