"""Regular expressions of JSON schemas, which Python reads a little differently."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import ValidationError
from jsonschema.validators import extend

_TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\$|.", re.DOTALL)


@functools.lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """`pattern` with a `$` that means the end of the text; Python's own also allows a newline before it.

    A text with a newline at its end would pass, and end a line in a batch script or a command. Raises re.error.
    """
    parts = (match[0] for match in _TOKEN.finditer(pattern))
    return re.compile("".join(r"\Z" if part == "$" else part for part in parts))


def strict(kind: Any) -> Any:
    """The validator class `kind`, with patterns as JSON schemas mean them."""
    return _extended(kind)


@functools.cache
def _extended(kind: Any) -> Any:
    return extend(kind, {"pattern": _check})  # type: ignore[no-untyped-call]


def _check(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if validator.is_type(instance, "string") and not compiled(pattern).search(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")
