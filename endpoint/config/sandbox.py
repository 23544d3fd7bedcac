"""Jinja with bounds: no Python internals, no files outside the template's folder, no endless work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

from endpoint.config.user_values import UserList, UserMapping, UserText, written

MOST_STEPS = 100_000  # of all ranges of one rendering together
LONGEST_VALUE = 1024 * 1024
LARGEST_POWER = 4096  # bits
_WIDE_FORMAT = re.compile(r"\d{5}|\*")


class Sandbox(SandboxedEnvironment):
    """The environment in which templates run; one for each rendering, as it counts.

    Text that came from the user is marked in the output.
    """

    intercepted_binops = frozenset(["*", "**", "%"])

    def __init__(self, folder: Path) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined, loader=jinja2.FileSystemLoader(folder), finalize=mark_user_text
        )
        self.globals["range"] = _counted_range()
        self.globals.pop("lipsum")
        self.filters["shell_escape"] = shell_escape

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse the operations that make something huge out of little."""
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
                    _bounded(len(sequence) * times, LONGEST_VALUE)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _bounded(left.bit_length() * right, LARGEST_POWER)
        elif operator == "%" and isinstance(left, str) and _WIDE_FORMAT.search(left):
            raise SecurityError("a format has too large a width")
        return super().call_binop(context, operator, left, right)


def _bounded(size: int, most: int) -> None:
    if size > most:
        raise SecurityError("an operation would make too large a value")


def _counted_range() -> Callable[..., range]:
    left = MOST_STEPS

    def counted(*arguments: int) -> range:
        nonlocal left
        steps = range(*arguments)
        left -= len(steps)
        if left < 0:
            raise SecurityError(f"the ranges of a template have at most {MOST_STEPS} steps together")
        return steps

    return counted


def mark_user_text(value: Any) -> Any:
    """What a template writes for `value`: user text with a mark at each end."""
    if isinstance(value, UserText | UserList | UserMapping):
        return written(value, marked=True)
    return value


def shell_escape(value: Any) -> Any:
    """A user's text as one word of a shell command, quoted for YAML; anything else as it is."""
    return UserText(shlex.quote(value._raw)) if isinstance(value, UserText) else value
