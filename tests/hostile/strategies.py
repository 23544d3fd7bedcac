"""Values that a stranger could send, and the harmless values that they are compared with."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st

HARMLESS = "harmless"

# What has a meaning in YAML, in Jinja, in a shell, or in a reader of JSON.
SYNTAX = [
    *("a: b", "a: 1\nendpoint_setup: evil", "\nengine:\n  type: Evil", "- a\n- b", "---\nb: 1\n", "...\n", "%YAML 1.1"),
    *("{a: 1}", "[1, 2]", "}", "]", ", evil: 1", "}, evil: {", "'", '"', "''", '""', "\\", '\\"', "\\n", "\\u0022"),
    *("' , evil: '", '", evil: "', '"\nevil: "', "'\nevil: '", "# no", " # no", "a #", "!!python/name:os.system"),
    *("!!str", "&a x", "*a", "<<", "<<: *a", "? a\n: b", "|", "|\n  a", ">-", "@a", "`a`", "%a", "=", "~", "null"),
    *(
        "yes",
        "no",
        "on",
        "0",
        "007",
        "1e3",
        "0x1F",
        "1:30",
        "2026-01-31",
        ".inf",
        ".nan",
        "-",
        "- ",
        "--",
        ":",
        ": ",
        "?",
    ),
    *("{{ 7 * 7 }}", "{% for a in b %}", "{# no #}", "{{", "}}", "{%", "%}", "{{ _GC }}", "{% raw %}", "#}", "-%}"),
    *(
        "\n",
        "\r\n",
        "\r",
        "\t",
        "\x00",
        "\x07",
        "\x1b[31m",
        "\x7f",
        "\x85",
        "\xa0",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\ufdd0",
    ),
    *(
        "\ufdd0x\ufdd1",
        "\ufdd2" + "0:1\ufdd3",
        "ä",
        "😀",
        "\U0010ffff",
        "\ud7ff",
        "a\u0301",
        "\u202e",
        "$(evil)",
        "`evil`",
    ),
    *(
        "; evil",
        "&& evil",
        "END_OF_REQUIREMENTS\nevil",
        "x" * 5000,
        " lead",
        "trail ",
        "\n\n",
        "a\n b\n  c",
        "user-text-1f0c0",
    ),
]
TEXT = (
    st.sampled_from(SYNTAX)
    | st.text(min_size=1, max_size=40)
    | st.lists(st.sampled_from(SYNTAX), min_size=1, max_size=4).map("".join)
)
OTHERS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUE = TEXT | OTHERS
NESTED = st.recursive(
    VALUE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=10
)
DEEP = st.integers(1, 40).map(lambda depth: _nested(depth, "a: b"))
LARGE = st.integers(1, 3000).map(lambda size: ["x: y"] * size) | st.integers(1, 500).map(
    lambda size: {f"k{number}: v": number for number in range(size)}
)


def _nested(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = {"k: v": [value]}
    return value


def harmless(value: Any) -> Any:
    """`value` with a harmless word, each time another one, in the place of each text and each key."""
    numbers = itertools.count()

    def replaced(part: Any) -> Any:
        if isinstance(part, str):
            return f"{HARMLESS}{next(numbers)}" if part else part
        if isinstance(part, dict):
            return {replaced(key): replaced(item) for key, item in part.items()}
        return [replaced(item) for item in part] if isinstance(part, list) else part

    return replaced(value)


def difference(tree: Any, expected: Any, path: str = "") -> str | None:
    """Where two trees differ in more than the places that a harmless word stands in; None if they don't."""
    if isinstance(expected, str) and HARMLESS in expected:
        return f"{path}: {tree!r} is no single value" if isinstance(tree, dict | list) else None
    if isinstance(expected, dict):
        if not isinstance(tree, dict) or len(tree) != len(expected):
            return f"{path}: {tree!r} instead of {expected!r}"
        pairs = zip(tree.items(), expected.items(), strict=True)
        for (key, value), (wanted_key, wanted) in pairs:
            if key != wanted_key and HARMLESS not in wanted_key:
                return f"{path}: the key {key!r} instead of {wanted_key!r}"
            if found := difference(value, wanted, f"{path}.{wanted_key}"):
                return found
        return None
    if isinstance(expected, list):
        if not isinstance(tree, list) or len(tree) != len(expected):
            return f"{path}: {tree!r} instead of {expected!r}"
        return next(filter(None, (difference(*pair, f"{path}[]") for pair in zip(tree, expected, strict=True))), None)
    return None if tree == expected and type(tree) is type(expected) else f"{path}: {tree!r} instead of {expected!r}"
