"""Templates that are text (`user_config_template.yaml.j2`), as those of the official endpoint.

A user's text comes out as a quoted string, keys of mappings too, so that in the place of a value it stays one value.
Besides, the parts of the output that are a user's are known (see `tracking`), and the output is read twice: as it is,
and with a harmless word in each of those places. Where the two don't have the same shape, a user's text has changed the
configuration, and it is refused.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from endpoint.config.jinja_errors import translated
from endpoint.config.load import faults_of
from endpoint.config.parse import BadSyntax, Document, compose, read_nodes
from endpoint.config.report import refusal
from endpoint.config.sandbox import Sandbox
from endpoint.config.tracking import unmarked
from endpoint.config.user_values import MARKS
from endpoint.errors import ConfigError, Stage, UserOptionsError

LONGEST_OUTPUT = 1024 * 1024
MOST_KEPT = 16  # templates, ready to run again
MOST_TEMPLATES = 100  # that one includes, extends or imports
SOURCE = "user endpoint configuration"
_STAND_IN = "user-text-1f0c"
_MARKED = re.compile(f"{MARKS[0]}([^{MARKS[1]}]*){MARKS[1]}")


@dataclass(frozen=True)
class Rendered:
    """What a template made of a user's options.

    tame: the same with a harmless word in the place of each text of the user's, for comparison.
    """

    text: str
    tame: str


def render_text(template: str, path: Path, variables: Mapping[str, Any]) -> Rendered:
    """The output of a template for `variables` (a user's ones `guarded`, see `user_values`).

    Raises UserOptionsError where something is not given, ConfigError where the template is wrong or does too much.
    """
    if any(mark in template for mark in MARKS):
        raise ConfigError(f"The template {path.name} has a character that is not text (U+FDD0 or U+FDD1).").at(
            Stage.RENDER
        )
    with translated(path.name):
        pieces, size = [], 0
        for piece in _compiled(template, path).generate(variables):
            size += len(unmarked(piece))
            if size > LONGEST_OUTPUT:
                raise ConfigError(f"The template {path.name} renders to more than {LONGEST_OUTPUT} characters.").at(
                    Stage.RENDER
                )
            pieces.append(piece)
    marked = "".join(pieces)
    return Rendered(unmarked(marked), _tame(marked))


def _compiled(template: str, path: Path) -> jinja2.Template:
    """The template, ready to run once in this thread."""
    sandbox, compiled = _compile(template, path)
    sandbox.renew()
    return compiled


@functools.lru_cache(maxsize=MOST_KEPT)
def _compile(template: str, path: Path) -> tuple[Sandbox, jinja2.Template]:
    sandbox = Sandbox(path.parent)
    return sandbox, sandbox.from_string(template)


def read_rendered(rendered: Rendered) -> Document:
    """The output as data. Raises UserOptionsError where a user's text has changed its shape, else ConfigError."""
    try:
        expected = _compose_tame(rendered.tame)
    except BadSyntax as error:
        raise refusal(faults_of(Document(None, SOURCE, faults=(error.fault,)))).at(Stage.RENDER) from error
    tame = read_nodes(expected, SOURCE, rendered.tame)
    if tame.faults:
        raise refusal(faults_of(tame)).at(Stage.RENDER)
    if rendered.tame == rendered.text:
        return tame
    try:
        node = compose(rendered.text)
        document = read_nodes(node, SOURCE, rendered.text)
    except BadSyntax as error:
        document = Document(None, SOURCE, faults=(error.fault,), text=rendered.text)
    if document.faults:
        raise UserOptionsError(
            f"The endpoint's template can't take the text of these options: {faults_of(document)[0]}."
        )
    if not _alike(node, expected):
        raise UserOptionsError("The text of these options would change the configuration beyond its own place.")
    return document


@functools.lru_cache(maxsize=MOST_KEPT)
def _compose_tame(text: str) -> Node | None:
    return compose(text)  # nobody changes the nodes


def shows_user_text(rendered: Rendered, line: int) -> bool:
    """Whether a text of the user's stands in that line (from 1) of the output."""
    lines = rendered.tame.splitlines()
    return line <= len(lines) and _STAND_IN in lines[line - 1]


def variables_of(template: str, path: Path) -> frozenset[str] | None:
    """The names that a template takes from outside, with those of the templates that it includes, extends or imports.

    None where a template's name is computed, so that nobody can tell. Raises ConfigError for bad syntax.
    """
    sandbox = Sandbox(path.parent)
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [template]
    with translated(path.name):
        while waiting:
            names, referenced, forgiving = _names(waiting.pop())
            found |= names
            for name in referenced:
                if name is None or len(seen) > MOST_TEMPLATES:
                    return None
                if name not in seen:
                    seen.add(name)
                    waiting += _source(sandbox, name, forgiving)
    return frozenset(found - sandbox.globals.keys())


@functools.lru_cache(maxsize=MOST_KEPT)
def _names(template: str) -> tuple[frozenset[str], tuple[str | None, ...], bool]:
    """What a template takes from outside, the templates that it names, and whether one of these may be missing."""
    parsed = Sandbox(Path()).parse(template)
    forgiving = any(include.ignore_missing for include in parsed.find_all(nodes.Include))
    return (
        frozenset(meta.find_undeclared_variables(parsed)),
        tuple(meta.find_referenced_templates(parsed)),
        forgiving,
    )


def _source(sandbox: Sandbox, name: str, forgiving: bool) -> list[str]:
    try:
        return [sandbox.loader.get_source(sandbox, name)[0]] if sandbox.loader else []
    except jinja2.TemplateNotFound:
        if forgiving:
            return []
        raise


def _tame(marked: str) -> str:
    """The output with a harmless word, another one each time, in each marked place."""
    numbers = itertools.count()

    def stand_in(found: re.Match[str]) -> str:
        text = found[1]
        word = f"{_STAND_IN}{next(numbers)}" if text else ""
        return f'"{word}"' if len(text) > 1 and text[0] == text[-1] == '"' else word

    return _MARKED.sub(stand_in, marked)


def _alike(node: Node | None, expected: Node | None) -> bool:
    """Whether two trees differ in nothing but the values, and the keys, that a user's text stands in."""
    if isinstance(expected, MappingNode):
        return (
            isinstance(node, MappingNode)
            and node.tag == expected.tag
            and len(node.value) == len(expected.value)
            and all(
                _alike(key, wanted_key) and _alike(value, wanted)
                for (key, value), (wanted_key, wanted) in zip(node.value, expected.value, strict=True)
            )
        )
    if isinstance(expected, SequenceNode):
        return (
            isinstance(node, SequenceNode)
            and node.tag == expected.tag
            and len(node.value) == len(expected.value)
            and all(map(_alike, node.value, expected.value))
        )
    if node is None or expected is None:
        return node is expected
    if isinstance(node, (MappingNode, SequenceNode)):
        return False
    return _STAND_IN in str(expected.value) or (node.tag == expected.tag and node.value == expected.value)
