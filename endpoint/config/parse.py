"""YAML text to plain data that remembers where in the text each value stands, and what is wrong with the text itself.

Plain words mean what YAML 1.1 says (`yes` is true, `0o`-less octals count), because that is how the official endpoint
reads the same files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from endpoint.config.faults import Fault, Path, Position

MOST_NODES = 100_000
DEEPEST = 60
_BARE_EXPONENT = re.compile(r"[eE][0-9]")
_TAG = "tag:yaml.org,2002:"
_QUOTE = 'put quotes around a value that begins with a brace, such as "{{ option }}"'


@dataclass(frozen=True)
class Document:
    """One text as data.

    data: dicts, lists, str, int, float, bool, None; None where the text can't be read at all.
    positions: of each key (of each item in lists) by its path.
    faults: what is wrong with the text: bad syntax, keys that stand twice, tags, ...
    unread: the paths of values that stand in `data` as mere text, as they could not be read.
    """

    data: Any
    source: str
    positions: dict[Path, Position] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    text: str = field(default="", repr=False)
    unread: frozenset[Path] = frozenset()

    def position(self, path: Path) -> Position:
        """Where `path` stands; where the nearest thing around it does when the text doesn't have it."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, Position(1, 1))


class BadSyntax(Exception):
    """A text is not YAML at all; `fault` says why and where."""

    def __init__(self, message: str, hint: str = "", at: Position | None = None) -> None:
        super().__init__(message)
        self.fault = Fault((), message, hint, at=at)


def parse_yaml(text: str, source: str) -> Document:
    """Read one YAML document; `source` is how messages name it. An empty one has the data None.

    Never raises: what is wrong (bad syntax, duplicate keys, keys that are not plain values, unknown tags, several
    documents, text that unfolds to something huge) is in the document's `faults`.
    """
    try:
        node = compose(text)
    except BadSyntax as error:
        return Document(None, source, faults=(error.fault,), text=text)
    return read_nodes(node, source, text)


def parse_json(text: str, source: str) -> Document:
    """As `parse_yaml`, for a file that other programs read as JSON, which allows less."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        fault = Fault((), f"not valid JSON: {error.msg}", at=Position(error.lineno, error.colno))
        return Document(None, source, faults=(fault,), text=text)
    except RecursionError:
        return Document(None, source, faults=(Fault((), "not valid JSON: it is nested too deep"),), text=text)
    document = parse_yaml(text.replace("\t", " "), source)
    # JSON is YAML but for rare texts; for these there are no positions.
    same = document.data == data or any("twice" in fault.message for fault in document.faults)
    return replace(document, text=text) if same else Document(data, source, text=text)


def read_nodes(node: Node | None, source: str, text: str = "") -> Document:
    """The document of a tree of YAML nodes (see `compose`). Never raises, as `parse_yaml`."""
    reader = _Reader()
    try:
        data = None if node is None else reader.read(node, (), 0)
    except BadSyntax as error:
        return Document(None, source, reader.positions, (*reader.faults, error.fault), text)
    return Document(data, source, reader.positions, tuple(reader.faults), text, frozenset(reader.unread))


def compose(text: str) -> Node | None:
    """The tree of YAML nodes of `text`, keys not yet compared. Raises BadSyntax."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 1)
    try:
        return yaml.compose(text)  # type: ignore[no-any-return]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(mark.line + 1, mark.column + 1) if mark is not None else None
        problem = error.problem or error.context or "not valid YAML"
        raise BadSyntax(_plain(problem), _hint(problem), at) from error
    except ReaderError as error:
        before = text[: error.position]
        at = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise BadSyntax(f"the character {text[error.position]!r} is not allowed in YAML", at=at) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise BadSyntax(f"this is not valid YAML ({_plain(str(error))})") from error


def _plain(problem: str) -> str:
    return " ".join(problem.split())


def _hint(problem: str) -> str:
    if "found character '\\t'" in problem:
        return "indent with spaces; YAML does not allow tabs there"
    if "mapping values are not allowed" in problem:
        return "look at the indentation, and put quotes around a value that contains a colon"
    return ""


class _Reader:
    """Turns nodes into data, once, and notes positions and faults on the way."""

    def __init__(self) -> None:
        self.positions: dict[Path, Position] = {}
        self.faults: list[Fault] = []
        self.unread: list[Path] = []
        self.nodes = 0

    def read(self, node: Node, path: Path, depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MOST_NODES or depth > DEEPEST:
            message = "the document is too deep or too large, perhaps through aliases"
            raise BadSyntax(message, at=_position(node))
        self.positions.setdefault(path, _position(node))
        if isinstance(node, MappingNode):
            self._only_tags(node, path, "map")
            return self._mapping(node, path, depth)
        if isinstance(node, SequenceNode):
            self._only_tags(node, path, "seq")
            return [self.read(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Path, depth: int) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge" or (key_node.value == "<<" and key_node.style is None):
                merged |= self._merge(value_node, path, depth)
                continue
            if not isinstance(key_node, ScalarNode):
                self._wrong(key_node, path, "a key must be a plain word, not a list or a mapping", _QUOTE)
                continue
            key = str(key_node.value)  # a word such as `on` or `5` as a key is meant as that word
            here = (*path, key)
            if key in own:
                first = self.positions[here]
                self._wrong(key_node, here, f"the key {key!r} stands here twice (first in line {first.line})")
                continue
            self.positions[here] = _position(key_node)
            own[key] = self.read(value_node, here, depth + 1)
        return merged | own

    def _merge(self, node: Node, path: Path, depth: int) -> dict[Any, Any]:
        parts = node.value if isinstance(node, SequenceNode) else [node]
        merged: dict[Any, Any] = {}
        for part in parts:
            if isinstance(part, MappingNode):
                merged = self.read(part, path, depth + 1) | merged
            else:
                self._wrong(part, path, "only mappings can be merged with <<")
        return merged

    def _scalar(self, node: Node, path: Path) -> Any:
        kind = str(node.tag).removeprefix(_TAG)
        read = _SCALARS.get(kind)
        if read is None:
            self.unread.append(path)
            self._wrong(node, path, f"the tag {_shown_tag(node)} is not allowed here")
            return str(node.value)
        try:
            return read(str(node.value))
        except ValueError:
            self.unread.append(path)
            self._wrong(node, path, f"{node.value!r} is not a valid {kind}")
            return str(node.value)

    def _only_tags(self, node: Node, path: Path, kind: str) -> None:
        if node.tag != _TAG + kind:
            self._wrong(node, path, f"the tag {_shown_tag(node)} is not allowed here")

    def _wrong(self, node: Node, path: Path, message: str, hint: str = "") -> None:
        self.faults.append(Fault(path, message, hint, at=_position(node)))


def _shown_tag(node: Node) -> str:
    return str(node.tag).replace(_TAG, "!!", 1)


def _position(node: Node) -> Position:
    start, end = node.start_mark, node.end_mark
    one_line = isinstance(node, ScalarNode) and start.line == end.line
    return Position(start.line + 1, start.column + 1, max(1, end.column - start.column) if one_line else 1)


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
