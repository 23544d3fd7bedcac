"""Data against a schema: every problem at once, each a sentence with its place in the file."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema.exceptions import ValidationError

from endpoint.config.load import Document, Path
from endpoint.config.schemas import validator, with_defaults
from endpoint.errors import ConfigError

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
_PLAIN_KEY = re.compile(r"[\w-]+")
_LONGEST_SHOWN = 60
MOST_ALTERNATIVES = 4  # in one sentence
MOST_TOLD = 100  # problems in one error


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a document; `path` is like `engine.provider.type`, lines and columns count from 1."""

    source: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}: "
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.path + ': ' if self.path else ''}{self.message}{hint}"


def problems(document: Document, schema_name: str) -> list[Problem]:
    """Everything that is wrong with `document` by the schema called `schema_name`, in the order of the text."""
    errors = validator(schema_name).iter_errors(document.data)
    found = [_problem(document, path, message, hint) for error in errors for path, message, hint in explain(error)]
    return sorted(set(found), key=lambda problem: (problem.line, problem.column, problem.path, problem.message))


def check(document: Document, schema_name: str) -> Any:
    """The document's data with defaults filled in (an empty document counts as an empty mapping).

    Raises ConfigError that tells all problems.
    """
    found = problems(document, schema_name)
    if found:
        raise refusal(found)
    return with_defaults({} if document.data is None else document.data, schema_name)


def refusal(found: list[Problem]) -> ConfigError:
    """The error that tells `found`: the first in the reason, all in the detail (up to a hundred)."""
    first, more = found[0], len(found) - 1
    reason = str(first) if not more else f"{first}; and {more} more problem{'s' if more > 1 else ''}"
    told = [str(problem) for problem in found[:MOST_TOLD]] + ["..."] * (len(found) > MOST_TOLD)
    return ConfigError(reason, detail="\n".join(told) if more else "")


def explain(error: ValidationError) -> Iterator[tuple[Path, str, str]]:
    """A validator's error as (path, sentence, hint), one for each key that is at fault."""
    path: Path = tuple(error.absolute_path)
    keyword = str(error.validator)
    value: Any = error.validator_value
    instance: Any = error.instance
    if keyword == "additionalProperties" and value is False:
        schema: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
        known = list(schema.get("properties", {}))
        for key in instance:
            if key not in known and not any(re.search(form, key) for form in schema.get("patternProperties", {})):
                yield (*path, key), "there is no such option here", _nearest(str(key), known, instance)
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
            _nearest(str(instance), [str(word) for word in words], ()),
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


def _problem(document: Document, path: Path, message: str, hint: str) -> Problem:
    at = document.position(path)
    return Problem(document.source, at.line, at.column, dotted(path), message, hint)


def _nearest(word: str, known: list[str], taken: Iterable[Any]) -> str:
    free = [name for name in known if name not in taken]
    close = difflib.get_close_matches(word, free, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


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
