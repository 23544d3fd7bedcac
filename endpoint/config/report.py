"""Faults as people and programs read them: lines with the place, underlined on a terminal, plain data, an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from endpoint.config.faults import Fault, Path, Position, dotted
from endpoint.errors import ConfigError, UserOptionsError

MOST_TOLD = 100  # problems in one error
LONGEST_SHOWN_LINE = 160


@dataclass(frozen=True)
class Problem:
    """One fault with its place in a file; `path` is like `engine.provider.type`, line and column count from 1.

    width: the characters to underline, from `column` on. warning: whether the file is good all the same.
    """

    source: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    warning: bool = False
    width: int = 1

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}: "
        hint = f" ({self.hint})" if self.hint else ""
        kind = "warning: " if self.warning else ""
        return f"{where}{kind}{self.path + ': ' if self.path else ''}{self.message}{hint}"

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: `{source, line, column, path, message, hint, severity}`."""
        plain = asdict(self)
        del plain["width"]
        return plain | {"severity": "warning" if plain.pop("warning") else "error"}


def located(faults: Iterable[Fault], source: str, where: Callable[[Path], Position]) -> list[Problem]:
    """The problems of `faults` in the order of the text, none twice; `where` tells the position of a path."""
    found = set()
    for fault in faults:
        at = fault.at or where(fault.path)
        found.add(
            Problem(source, at.line, at.column, dotted(fault.path), fault.message, fault.hint, fault.warning, at.width)
        )
    return sorted(found, key=lambda problem: (problem.line, problem.column, problem.path, problem.message))


def underlined(problem: Problem, text: str, *, color: bool) -> str:
    """The problem and below it the line of `text` where it stands, with a mark under the part that is meant."""
    lines = text.splitlines()
    if not 0 < problem.line <= len(lines):
        return str(problem)
    line = lines[problem.line - 1].replace("\t", " ")
    if len(line) > LONGEST_SHOWN_LINE:
        line = f"{line[:LONGEST_SHOWN_LINE]}..."
    width = max(1, min(problem.width, len(line) - problem.column + 1))
    number = f"{problem.line:5d}"
    mark = "^" * width
    start, end = ("\x1b[33m" if problem.warning else "\x1b[31m", "\x1b[0m") if color else ("", "")
    below = f"{' ' * len(number)} | {' ' * (problem.column - 1)}{start}{mark}{end}"
    return f"{problem}\n{number} | {line}\n{below}"


class InvalidConfig(ConfigError):
    """A file of an administrator's with `problems`."""

    def __init__(self, found: Sequence[Problem], **more: Any) -> None:
        super().__init__(_first(found), detail=_all(found), **more)
        self.problems = tuple(found)


class InvalidOptions(UserOptionsError):
    """What a user sent makes a configuration with `problems`."""

    def __init__(self, found: Sequence[Problem], reason: str = "", **more: Any) -> None:
        super().__init__(f"{reason}{_first(found)}", detail=_all(found), **more)
        self.problems = tuple(found)


def refusal(found: Sequence[Problem]) -> InvalidConfig:
    """The error that tells `found`: the first in the reason, all in the detail (up to a hundred)."""
    return InvalidConfig(found)


def _first(found: Sequence[Problem]) -> str:
    more = len(found) - 1
    return str(found[0]) if not more else f"{found[0]}; and {more} more problem{'s' if more > 1 else ''}"


def _all(found: Sequence[Problem]) -> str:
    told = [str(problem) for problem in found[:MOST_TOLD]] + ["..."] * (len(found) > MOST_TOLD)
    return "\n".join(told) if len(found) > 1 else ""
