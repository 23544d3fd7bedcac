"""YAML text to plain data that remembers where in the text each value stands.

Plain words mean what YAML 1.1 says (`yes` is true, `0o`-less octals count), because that is how the official endpoint
reads the same files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from endpoint.errors import ConfigError

Path = tuple[str | int, ...]

MOST_NODES = 100_000
DEEPEST = 60
_BARE_EXPONENT = re.compile(r"[eE][0-9]")
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Position:
    """A place in a text; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """`data`: dicts, lists, str, int, float, bool, None. `positions`: of each key (of items in lists) by its path."""

    data: Any
    source: str
    positions: dict[Path, Position] = field(default_factory=dict)

    def position(self, path: Path) -> Position:
        """Where `path` stands; where the nearest thing around it does when the text doesn't have it."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, Position(1, 1))


def load_yaml(text: str, source: str) -> Document:
    """Read one YAML document; `source` is how messages name it. An empty one is None.

    Raises ConfigError with `source:line:column` for bad syntax, duplicate keys, keys that are not plain values,
    unknown tags, several documents, and text that unfolds to something huge.
    """
    return read_nodes(compose(text, source), source)


def read_nodes(node: Node | None, source: str) -> Document:
    """The data of a tree of YAML nodes (see `compose`). Raises ConfigError, as `load_yaml`."""
    reader = _Reader(source)
    data = None if node is None else reader.read(node, (), 0)
    return Document(data, source, reader.positions)


def compose(text: str, source: str) -> Node | None:
    """The tree of YAML nodes of `text`, keys not yet compared; raises ConfigError on bad syntax."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    try:
        return yaml.compose(text)  # type: ignore[no-any-return]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        problem = error.problem or error.context or "not valid YAML"
        raise ConfigError(f"{source}{where}: {_plain(problem)}", hint=_hint(problem)) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: this is not valid YAML ({_plain(str(error))})") from error


def _plain(problem: str) -> str:
    return " ".join(problem.split())


def _hint(problem: str) -> str:
    if "found character '\\t'" in problem:
        return "Indent with spaces; YAML does not allow tabs there"
    if "mapping values are not allowed" in problem:
        return "Look at the indentation, and put quotes around a value that contains a colon"
    return ""


class _Reader:
    """Turns nodes into data, once, and notes positions on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.positions: dict[Path, Position] = {}
        self.nodes = 0

    def read(self, node: Node, path: Path, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MOST_NODES or depth > DEEPEST:
            raise self._error(node, "the document is too deep or too large, perhaps through aliases")
        self.positions.setdefault(path, _position(node))
        if isinstance(node, MappingNode):
            self._only_tags(node, "map")
            return self._mapping(node, path, depth)
        if isinstance(node, SequenceNode):
            self._only_tags(node, "seq")
            return [self.read(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: MappingNode, path: Path, depth: int) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge" or (key_node.value == "<<" and key_node.style is None):
                merged |= self._merge(value_node, path, depth)
                continue
            key = self._key(key_node)
            here = (*path, key)
            if key in own:
                first = self.positions[here]
                raise self._error(key_node, f"the key {key!r} stands here twice (first in line {first.line})")
            self.positions[here] = _position(key_node)
            own[key] = self.read(value_node, here, depth + 1)
        return merged | own

    def _merge(self, node: Node, path: Path, depth: int) -> dict[Any, Any]:
        parts = node.value if isinstance(node, SequenceNode) else [node]
        merged: dict[Any, Any] = {}
        for part in parts:
            if not isinstance(part, MappingNode):
                raise self._error(part, "only mappings can be merged with <<")
            merged = self.read(part, path, depth + 1) | merged
        return merged

    def _key(self, node: Node) -> str:
        if not isinstance(node, ScalarNode):
            raise self._error(node, "a key must be a plain word, not a list or a mapping")
        # A word such as `on` or `5` as a key is meant as that word.
        return str(node.value)

    def _scalar(self, node: Node) -> Any:
        kind = str(node.tag).removeprefix(_TAG)
        read = _SCALARS.get(kind)
        if read is None:
            raise self._error(node, f"the tag {_shown_tag(node)} is not allowed here")
        try:
            return read(str(node.value))
        except ValueError as error:
            raise self._error(node, f"{node.value!r} is not a valid {kind}") from error

    def _only_tags(self, node: Node, kind: str) -> None:
        if node.tag != _TAG + kind:
            raise self._error(node, f"the tag {_shown_tag(node)} is not allowed here")

    def _error(self, node: Node, message: str) -> ConfigError:
        at = _position(node)
        return ConfigError(f"{self.source}:{at.line}:{at.column}: {message}")


def _shown_tag(node: Node) -> str:
    return str(node.tag).replace(_TAG, "!!", 1)


def _position(node: Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def _boolean(text: str) -> bool | str:
    if text in ("y", "Y", "n", "N"):
        return text  # single letters are words to the official endpoint's reader
    return text.lower() in ("yes", "true", "on")


def _integer(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if ":" in digits:
        total = 0
        for part in digits.split(":"):
            total = total * 60 + int(part)
        return sign * total
    for prefix, base in (("0x", 16), ("0b", 2), ("0o", 8)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base)
    if digits != "0" and re.fullmatch(r"0[0-7]+", digits):
        return sign * int(digits, 8)
    return sign * int(digits)


def _float(text: str) -> float | str:
    if "." not in text or _BARE_EXPONENT.search(text):
        return text  # `1e3` and `1.5e3` are words to the official endpoint's reader, `1.5e+3` is a number
    digits = text.replace("_", "").lower()
    if digits.lstrip("+-") in (".inf", ".nan"):
        return float(digits.replace(".", ""))
    if ":" in digits:
        sign = -1 if digits.startswith("-") else 1
        total = 0.0
        for part in digits.lstrip("+-").split(":"):
            total = total * 60 + float(part)
        return sign * total
    return float(digits)


_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": _boolean,
    "int": _integer,
    "float": _float,
    "str": str,
    "timestamp": str,
    "value": str,
    "merge": str,
}
