"""Bounds on JSON that somebody else wrote and that is kept here."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64


def fits(value: Any, limit: int) -> bool:
    """Whether `value` (out of a JSON text) has at most `limit` characters as JSON, and is not nested too deeply.

    The depth is looked at first, level by level: a writer of JSON gives up on a value that is nested deeply enough.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return len(json.dumps(value)) <= limit
    return False
