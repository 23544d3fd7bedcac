"""Options that a user could send, from the endpoint's own schema of them: to try a template with."""

from __future__ import annotations

from typing import Any

MOST_SETS = 20
_BY_TYPE: dict[str, Any] = {"string": "example", "boolean": True, "array": [], "object": {}, "null": None}


def example_options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Sets of options to try: those in the schema's own `examples`, the required options alone, and all options.

    An option's value is the first of its `examples`, else its `default`, `const` or first `enum` value, else one that
    its type and bounds allow.
    """
    properties = schema.get("properties")
    options = properties if isinstance(properties, dict) else {}
    required = [name for name in schema.get("required", ()) if name in options]
    sets = [found for found in _list(schema.get("examples")) if isinstance(found, dict)]
    sets += [{name: _value(options[name]) for name in names} for names in (required, list(options))]
    distinct: list[dict[str, Any]] = []
    for found in sets:
        if found not in distinct:
            distinct.append(found)
    return distinct[:MOST_SETS]


def _value(option: Any) -> Any:
    if not isinstance(option, dict):
        return _BY_TYPE["string"]
    if examples := _list(option.get("examples")):
        return examples[0]
    for key in ("default", "const"):
        if key in option:
            return option[key]
    if choices := _list(option.get("enum")):
        return choices[0]
    kind = option.get("type", "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind in ("integer", "number"):
        return option.get("minimum", min(1, option.get("maximum", 1)))
    return _BY_TYPE.get(str(kind), "example")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
