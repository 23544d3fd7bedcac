"""Data against a schema: everything that is wrong, at once, each a sentence with its path in the data."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jsonschema.exceptions import ValidationError

from endpoint.config.faults import Fault, Path, dotted
from endpoint.config.schemas import validator

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "nothing (null)",
}
_LIMITS = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "minLength": "must have at least {} character(s)",
    "maxLength": "must have at most {} character(s)",
    "minItems": "must have at least {} item(s)",
    "maxItems": "must have at most {} item(s)",
}
_LONGEST_SHOWN = 60
MOST_ALTERNATIVES = 4  # in one sentence
MOST_ALLOWED = 6  # options that are named where none is like the wrong one


def faults(data: Any, schema_name: str) -> list[Fault]:
    """Everything that is wrong with `data` by the schema called `schema_name`."""
    errors = validator(schema_name).iter_errors(data)
    return [Fault(path, message, hint) for error in errors for path, message, hint in explain(error)]


def explain(error: ValidationError) -> Iterator[tuple[Path, str, str]]:
    """A validator's error as (path, sentence, hint), one for each key that is at fault.

    A schema can have a sentence of its own for a keyword that fails, in `x-messages`.
    """
    path: Path = tuple(error.absolute_path)
    keyword = str(error.validator)
    value: Any = error.validator_value
    instance: Any = error.instance
    if "propertyNames" in list(error.absolute_schema_path)[-2:-1]:  # about a key
        path = (*path, str(instance))
    if isinstance(error.schema, Mapping) and (told := error.schema.get("x-messages", {}).get(keyword)):
        yield path, told, ""
    elif keyword == "additionalProperties" and value is False:
        schema: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
        options = schema.get("properties", {})
        known = [name for name, option in options.items() if not (option is True or option.get("deprecated"))]
        for key in instance:
            if key not in options and not any(re.search(form, key) for form in schema.get("patternProperties", {})):
                yield (
                    (*path, key),
                    "there is no such option here",
                    nearest(str(key), known, instance) or _allowed(known, instance),
                )
    elif keyword == "required":
        for key in value:
            if key not in instance and f"{key!r}" in error.message:
                yield path, f"the option {key!r} is missing", ""
    elif keyword == "type":
        yield path, f"must be {_or(_types(value))}, not {shown(instance)}", _type_hint(value, instance)
    elif keyword == "enum":
        words = [word for word in value if word is not None]
        yield (
            path,
            f"must be one of {', '.join(map(str, words))}, not {shown(instance)}",
            nearest(str(instance), [str(word) for word in words], ()),
        )
    elif keyword == "const":
        yield path, f"must be {shown(value)}, not {shown(instance)}", ""
    elif keyword == "pattern":
        yield path, _pattern(value, instance), ""
    elif keyword in _LIMITS:
        yield path, f"{_LIMITS[keyword].format(value)}, not {shown(instance)}", ""
    elif keyword in ("anyOf", "oneOf") and error.context:
        yield path, _none_of(error.context, path), ""
    elif error.schema is False:  # what the stubs don't know
        yield path, f"a value is not allowed here: {shown(instance)}", ""
    else:
        yield path, " ".join(error.message.split()), ""


def _none_of(context: Iterable[ValidationError], path: Path) -> str:
    """What keeps the data from each of several alternatives, in one sentence."""
    sentences: dict[str, None] = {}
    for error in context:
        for below, message, hint in explain(error):
            deeper = dotted(below[len(path) :])
            told = f"{deeper}: {message}" if deeper else message
            sentences[told + (f" ({hint})" if hint else "")] = None
    return "; or ".join(list(sentences)[:MOST_ALTERNATIVES])


def shown(value: Any) -> str:
    """A value in a message: short, and of its type."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def nearest(word: str, known: Iterable[str], taken: Iterable[Any]) -> str:
    """A hint at the word of `known` that is most like `word` and not in `taken`; empty if none is like it."""
    free = [name for name in known if name not in taken]
    close = difflib.get_close_matches(word, free, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def _allowed(known: Iterable[str], taken: Iterable[Any]) -> str:
    free = [name for name in known if name not in taken]
    more = f" and {len(free) - MOST_ALLOWED} more" if len(free) > MOST_ALLOWED else ""
    return f"there could be {', '.join(free[:MOST_ALLOWED])}{more}" if free else ""


def _types(value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else list(value)
    kept = [name for name in names if name != "null"] or names
    return [_TYPES.get(name, str(name)) for name in kept]


def _type_hint(value: Any, instance: Any) -> str:
    expected = [value] if isinstance(value, str) else list(value)
    if "string" in expected and isinstance(instance, (int, float)):
        return "put it in quotes"
    if isinstance(instance, str) and not {"string"} & set(expected):
        return "without quotes" if instance.replace(".", "", 1).isdigit() else ""
    return ""


def _pattern(pattern: str, instance: Any) -> str:
    if pattern.endswith("[0-9a-fA-F]{12}$"):
        return f"must be a UUID, not {shown(instance)}"
    return f"{shown(instance)} does not have the form {pattern}"


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
