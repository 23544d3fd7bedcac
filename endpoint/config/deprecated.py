"""Options of older configurations: what to write instead, and the same data in today's words.

In a schema such an option is `deprecated`. Its `x-use` names the option that replaces it, by the path from the same
block; without one the option has no effect any more, and `x-why` says so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from endpoint.config.faults import Fault, Path, dotted
from endpoint.config.schemas import Schema, blocks


def deprecations(data: Any, schema_name: str) -> list[Fault]:
    """A warning for each deprecated option in `data`."""
    return [
        Fault((*path, key), _sentence(path, schema), warning=True)
        for path, block, options in blocks(data, schema_name)
        for key, schema in _deprecated(block, options)
    ]


def modernized(data: Any, schema_name: str) -> Any:
    """A copy of `data`, which must be valid, with each deprecated option's value in the place of the new one.

    The new one wins where both are there.
    """
    result = copy.deepcopy(data)
    found = [
        (block, key, schema)
        for _, block, options in blocks(result, schema_name)
        for key, schema in _deprecated(block, options)
    ]
    for block, key, schema in found:
        value = block.pop(key)
        if value is not None and schema.get("x-use"):
            _put(block, schema["x-use"].split("."), value)
    return result


def _deprecated(block: dict[str, Any], options: dict[str, list[Schema]]) -> Iterator[tuple[str, Schema]]:
    for key in block:
        for schema in options.get(key, ()):
            if schema.get("deprecated"):
                yield key, schema
                break


def _sentence(path: Path, schema: Schema) -> str:
    if use := schema.get("x-use"):
        return f"this option is deprecated; write {dotted((*path, *use.split('.')))} instead"
    return f"this option is deprecated and has no effect: {schema['x-why']}"


def _put(block: dict[str, Any], place: list[str], value: Any) -> None:
    *outer, last = place
    for key in outer:
        if not isinstance(block.get(key), dict):
            block[key] = {}
        block = block[key]
    block.setdefault(last, value)
