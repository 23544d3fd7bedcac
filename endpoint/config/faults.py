"""What parsing and checking find in a document: the one vocabulary that they share with the report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

Path = tuple[str | int, ...]  # keys and numbers of items, from the document's top

_PLAIN_KEY = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Position:
    """A place in a text; line and column count from 1. `width` is the length of what stands there, in characters."""

    line: int
    column: int
    width: int = field(default=1, compare=False)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, or (`warning`) only not as it should be.

    at: where it stands, if it is not simply where `path` does.
    """

    path: Path
    message: str
    hint: str = ""
    warning: bool = False
    at: Position | None = None


def dotted(path: Iterable[str | int]) -> str:
    """`engine.provider.type`, `admins[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN_KEY.fullmatch(part) else json.dumps(part)
            text += f".{name}" if text else name
    return text
