"""Templates that are data (`user_config_template.yaml`): YAML first, and expressions only inside its values.

The YAML is read before anything is filled in, so nothing that a user sends can become a key, a tag or a second
document. A text that is one expression as a whole (`"{{ nodes }}"`) is replaced by the value of the expression, with
its type; any other text with Jinja in it is rendered as text, into which a user's text goes as it is.
"""

from __future__ import annotations

import functools
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError

from endpoint.config import limits
from endpoint.config.faults import Fault, Path
from endpoint.config.jinja_errors import translated
from endpoint.config.load import readable
from endpoint.config.parse import DEEPEST, Document, parse_yaml
from endpoint.config.sandbox import Bounded

MOST_KEPT = 16  # templates, ready to run again
_JINJA = ("{{", "{%", "{#")
_BLOCK = re.compile(r"[|>][-+0-9]*\s*(#.*)?$")
# How a data template can say that it is one: the first line that `configure` writes for editors.
DECLARED = re.compile(r"\A#.*\$schema=\S*user-template")
# A bare expression as a value, or a statement on a line of its own: only templates that are text have these.
_BARE = re.compile(r"^\s*(?:- )?\s*(?:[\w.-]+:\s+)?\{\{|^\s*-?\s*\{[%#]", re.MULTILINE)


@functools.lru_cache(maxsize=MOST_KEPT)
def is_data_template(template: str, path: FilePath) -> bool:
    """Whether a template is data. Those called `.j2` are not, nor those of older sites that are no YAML as they are."""
    if path.suffix == ".j2":
        return False
    if DECLARED.match(template):
        return True
    return not (parse_yaml(template, path.name).faults and _BARE.search(template))


@functools.lru_cache(maxsize=MOST_KEPT)
def parse_data_template(template: str, path: FilePath) -> DataTemplate:
    """Raises InvalidConfig, with all problems, for a text that is no YAML, or has Jinja in a key."""
    document = parse_yaml(template, path.name)
    found = list(document.faults)
    if not isinstance(document.data, dict | None) and not found:
        found.append(Fault((), "the template must be a mapping: options and their values"))
    for place in document.positions:
        if place and isinstance(place[-1], str) and _has_jinja(place[-1]):
            found.append(Fault(place, "a key can't hold an expression; only values can"))
    return DataTemplate(readable(replace(document, faults=tuple(found))), path)


class DataTemplate:
    """A template as a document whose values are yet to be filled in; can be rendered again and again."""

    def __init__(self, document: Document, path: FilePath) -> None:
        self.document = document
        self._environment = Bounded(path.parent, finalize=_as_text, keep_trailing_newline=True)
        self._environment.filters["shell_escape"] = _shell_escape
        self._ready: dict[str, Callable[[dict[str, Any]], Any]] = {}  # what to do for a text

    def render(self, variables: Mapping[str, Any]) -> Document:
        """The document with its values filled in; positions and text are still those of the template.

        Raises UserOptionsError where something is not given, InvalidConfig where the template is wrong or too greedy.
        """
        self._environment.renew()
        return replace(self.document, data=self._fill(self.document.data, (), dict(variables)))

    def expressions(self) -> Iterator[tuple[Path, str]]:
        """Each value with Jinja in it, as (path, text)."""
        yield from _expressions(self.document.data, ())

    def variables(self, below: Path = ()) -> frozenset[str] | None:
        """The names that the expressions at or below a path take from outside; None where that can't be told."""
        found: set[str] = set()
        for path, text in self.expressions():
            if path[: len(below)] == below:
                with translated(self.document.source, self._line(path)):
                    parsed = self._environment.parse(text)
                found |= meta.find_undeclared_variables(parsed)
                if any(True for _ in meta.find_referenced_templates(parsed)):
                    return None
        return frozenset(found - self._environment.globals.keys())

    def _fill(self, value: Any, path: Path, variables: dict[str, Any]) -> Any:
        if isinstance(value, dict):
            return {key: self._fill(item, (*path, key), variables) for key, item in value.items()}
        if isinstance(value, list):
            return [self._fill(item, (*path, index), variables) for index, item in enumerate(value)]
        if isinstance(value, str) and _has_jinja(value):
            with translated(self.document.source, self._line(path)):
                if value not in self._ready:
                    self._ready[value] = self._prepare(value)
                return self._ready[value](variables)
        return value

    def _prepare(self, text: str) -> Callable[[dict[str, Any]], Any]:
        environment = self._environment
        expression = _expression(text, environment.parse(text).body)
        if expression is not None:
            evaluate = environment.compile_expression(expression, undefined_to_none=False)

            def typed(variables: dict[str, Any]) -> Any:
                result = evaluate(variables)
                limits.check_size(result)
                return _typed(result, environment)

            return typed
        template = environment.from_string(text)

        def rendered(variables: dict[str, Any]) -> str:
            pieces, size = [], 0
            for piece in template.generate(variables):
                size += limits.check_size(piece)
                if size > limits.LARGEST_VALUE:
                    raise SecurityError("a text becomes too large")
                pieces.append(piece)
            return "".join(pieces)

        return rendered

    def _line(self, path: Path) -> int:
        """The line in which the text of a value begins."""
        line = self.document.position(path).line
        lines = self.document.text.splitlines()
        return line + 1 if line <= len(lines) and _BLOCK.search(lines[line - 1]) else line


def _expression(text: str, body: list[nodes.Node]) -> str | None:
    """The expression that `text` is as a whole; None where it is more than that."""
    whole = text.strip()
    if len(body) != 1 or not isinstance(body[0], nodes.Output) or not (whole[:2] == "{{" and whole[-2:] == "}}"):
        return None
    parts = [node for node in body[0].nodes if not (isinstance(node, nodes.TemplateData) and not node.data.strip())]
    if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData):
        return None
    return whole[2:-2].strip("-+")  # signs right beside the braces are Jinja's, about white space


def _typed(value: Any, environment: Bounded, depth: int = 0) -> Any:
    """The value of an expression as plain data. Raises what Jinja does for something undefined, and SecurityError."""
    if depth > DEEPEST:
        raise SecurityError("a value is nested too deep")
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises, with Jinja's own words
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise SecurityError("a mapping has a key that is no text")
        return {str(key): _typed(item, environment, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | range | Iterator):
        return [_typed(item, environment, depth + 1) for item in environment.counted(value)]
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise SecurityError(f"an expression gives something that is no value ({type(value).__name__})")


def _as_text(value: Any) -> Any:
    """What stands for a value inside a text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | Mapping):
        raise SecurityError("a list or a mapping can't stand inside a text; join it, or make it the whole value")
    return value


def _shell_escape(value: Any) -> Any:
    return shlex.quote(value) if isinstance(value, str) else value


def _has_jinja(text: str) -> bool:
    return any(mark in text for mark in _JINJA)


def _expressions(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _expressions(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _expressions(item, (*path, index))
    elif isinstance(value, str) and _has_jinja(value):
        yield path, value
