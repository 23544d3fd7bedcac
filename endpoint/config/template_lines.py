"""Which line of a text template made a given place of its output.

Only asked when something is wrong with the output: the template then runs once more, with a mark before each line of
its own text. Where that gives another output (a template that rolls dice), nobody can tell.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes

from endpoint.config.sandbox import Sandbox
from endpoint.config.tracking import unmarked
from endpoint.errors import EndpointError

# Noncharacters around "number of the template:line"; the marks of users' texts are others.
_BEGIN, _END = "\ufdd2", "\ufdd3"
_MARK = re.compile(f"{_BEGIN}(\\d+):(\\d+){_END}")
# What these hold is not output yet when they have run, but a value that the template may look at.
_CAPTURING = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock)


@dataclass(frozen=True)
class Origins:
    """For each stretch of an output, from an offset on: the template's name and the line (from 1) that made it."""

    offsets: tuple[int, ...]
    places: tuple[tuple[str, int], ...]

    def at(self, offset: int) -> tuple[str, int] | None:
        """The place that made the character at `offset`."""
        index = bisect.bisect_right(self.offsets, offset) - 1
        return self.places[index] if index >= 0 else None


def origins(template: str, path: Path, variables: Mapping[str, Any], text: str) -> Origins | None:
    """Where the parts of `text`, the output of the template for `variables`, come from; None if that can't be told."""
    if _BEGIN in template:
        return None
    sandbox = _LineSandbox(path)
    try:
        marked = unmarked(sandbox.from_string(template).render(variables))
    except (EndpointError, jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None
    offsets: list[int] = []
    places: list[tuple[str, int]] = []
    size = end = 0
    plain = []
    for mark in _MARK.finditer(marked):
        piece = marked[end : mark.start()]
        plain.append(piece)
        size += len(piece)
        end = mark.end()
        offsets.append(size)
        places.append((sandbox.names[int(mark[1])], int(mark[2])))
    plain.append(marked[end:])
    return Origins(tuple(offsets), tuple(places)) if "".join(plain) == text else None


class _LineSandbox(Sandbox):
    """Writes a mark at the beginning of each line of the templates' own text."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent)
        self.names: list[str] = []
        self._own_name = path.name

    def _generate(self, source: nodes.Template, name: Any, filename: Any, defer_init: bool = False) -> str:
        self.names.append(name or self._own_name)
        for data in _written_out(source):
            data.data = self._with_marks(data.data, data.lineno)
        return super()._generate(source, name, filename, defer_init)

    def _with_marks(self, text: str, line: int) -> str:
        which = len(self.names) - 1
        return "\n".join(f"{_BEGIN}{which}:{line + number}{_END}{part}" for number, part in enumerate(text.split("\n")))


def _written_out(node: nodes.Node) -> Iterator[nodes.TemplateData]:
    if isinstance(node, nodes.TemplateData):
        yield node
    elif not isinstance(node, _CAPTURING):
        for child in node.iter_child_nodes():
            yield from _written_out(child)
