"""From an endpoint's template and a user's options to a user endpoint's configuration, checked.

The template is the administrator's, and trusted; the options are a stranger's. What comes out is valid by `user.schema`
before anything starts, and what is wrong with it is told with the line of the template that made it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from endpoint.config.check import errors, problems
from endpoint.config.data_template import is_data_template, parse_data_template
from endpoint.config.faults import Position
from endpoint.config.parse import Document
from endpoint.config.report import InvalidConfig, InvalidOptions, Problem
from endpoint.config.template_lines import Origins, origins
from endpoint.config.text_template import Rendered, read_rendered, render_text, shows_user_text, variables_of
from endpoint.config.user_options import RESERVED, check_user_options
from endpoint.config.user_values import guarded, plain
from endpoint.config.write import dump_yaml
from endpoint.errors import Stage

log = logging.getLogger(__name__)

_SECRET_VARIABLES = ("GLOBUS_COMPUTE_CLIENT_SECRET", "FUNCX_SDK_CLIENT_SECRET")


@dataclass(frozen=True)
class Template:
    """A template's text, with where it lies: other templates that it names are read from that folder."""

    text: str
    path: Path

    @property
    def is_data(self) -> bool:
        """Whether it is YAML with expressions in its values, not text that becomes YAML."""
        return is_data_template(self.text, self.path)

    def variables(self) -> frozenset[str] | None:
        """The names that it takes from outside; None where nobody can tell. Raises ConfigError for bad syntax."""
        if self.is_data:
            return parse_data_template(self.text, self.path).variables()
        return variables_of(self.text, self.path)


def render_user_config(
    *,
    template: str,
    template_path: Path,
    user_options_schema: dict[str, Any] | None,
    user_options: dict[str, Any],
    user_runtime: dict[str, Any],
    parent_config: Mapping[str, Any],
    mapped_identity: Mapping[str, Any] | None,
    environ: Mapping[str, str] | None = None,
) -> str:
    """The YAML text of a user endpoint's configuration, checked against its schema.

    The arguments are those of `rendered`. Raises UserOptionsError when the user's options are at fault, ConfigError
    when the template or the schema is.
    """
    text, refused = rendered(
        Template(template, template_path),
        user_options_schema=user_options_schema,
        user_options=user_options,
        user_runtime=user_runtime,
        parent_config=parent_config,
        mapped_identity=mapped_identity,
        environ=environ,
    )
    if refused is not None:
        raise refused
    return text


def rendered(
    template: Template,
    *,
    user_options_schema: dict[str, Any] | None,
    user_options: dict[str, Any],
    user_runtime: dict[str, Any],
    parent_config: Mapping[str, Any],
    mapped_identity: Mapping[str, Any] | None,
    environ: Mapping[str, str] | None = None,
) -> tuple[str, InvalidConfig | InvalidOptions | None]:
    """What a template makes of a user's options, as YAML text, and why it is no valid configuration (None: it is one).

    user_options_schema: a JSON schema for `user_options`, which are the template's variables.
    user_runtime, parent_config, mapped_identity, environ (this process's variables where None): what the template
    knows as `_GC.user_runtime`, `_GC.parent_config`, `_GC.mapped_identity` and `_GC.env`.

    Raises UserOptionsError and ConfigError, as `render_user_config`, where there is nothing to show.
    """
    used = template.variables()
    check_user_options(user_options, user_options_schema, used)
    for old in sorted({*(used or ())} & {*RESERVED} - {"_GC"}):
        log.warning("The template %s uses `%s`; write `_GC.%s`", template.path.name, old, old)
    wrap = plain if template.is_data else guarded
    reserved = {
        "parent_config": parent_config,
        "mapped_identity": mapped_identity or {},
        "user_runtime": wrap(user_runtime),
        "env": {
            name: value
            for name, value in (os.environ if environ is None else environ).items()
            if name not in _SECRET_VARIABLES
        },
    }
    variables = {name: wrap(value, name) for name, value in user_options.items()}
    variables |= {name: reserved[name] for name in RESERVED if name != "_GC"}
    variables["_GC"] = reserved
    return (_from_data if template.is_data else _from_text)(template, variables, user_options)


Outcome = tuple[str, InvalidConfig | InvalidOptions | None]


def _from_data(template: Template, variables: dict[str, Any], options: Mapping[str, Any]) -> Outcome:
    parsed = parse_data_template(template.text, template.path)
    document = parsed.render(variables)
    found = errors(problems(document, "user"))
    users = False
    if found:
        asked = {parsed.document.position(path): parsed.variables(path) for path, _ in parsed.expressions()}
        behind = [asked.get(Position(problem.line, problem.column)) for problem in found]
        users = any(names & options.keys() for names in behind if names)
    return dump_yaml(document.data), _refused(found, users=users)


def _from_text(template: Template, variables: dict[str, Any], options: Mapping[str, Any]) -> Outcome:
    made = render_text(template.text, template.path, variables)
    document = read_rendered(made)
    found = errors(problems(document, "user"))
    users = any(_of_the_user(problem, made, options) for problem in found)
    if found:
        made_by = origins(template.text, template.path, variables, made.text)
        found = [_in_template(problem, document, template, made_by) for problem in found]
    return made.text, _refused(found, users=users)


def _refused(found: list[Problem], *, users: bool) -> InvalidConfig | InvalidOptions | None:
    if not found:
        return None
    if users:
        return InvalidOptions(found, "With these options the endpoint's configuration is not valid: ")
    return InvalidConfig(found, stage=Stage.RENDER)


def _in_template(problem: Problem, document: Document, template: Template, made_by: Origins | None) -> Problem:
    """The problem at the line of the template that made the line of the output where it stands."""
    lines = document.text.splitlines(keepends=True)
    at = made_by.at(sum(map(len, lines[: problem.line - 1])) + problem.column - 1) if made_by else None
    if at is None:
        return problem
    name, line = at
    told = replace(problem, source=name, line=line, hint=_also(problem.hint, f"line {problem.line} of the result"))
    if name != template.path.name:
        return replace(told, column=1)
    text = template.text.splitlines()[line - 1 : line]
    word = lines[problem.line - 1][problem.column - 1 :][: problem.width]
    return replace(told, column=max(1, text[0].find(word) + 1) if text else 1)


def _also(hint: str, more: str) -> str:
    return f"{hint}; {more}" if hint else more


def _of_the_user(problem: Problem, rendered: Rendered, options: Mapping[str, Any]) -> bool:
    """Whether the line of the problem shows something of the user's: a text of theirs, or one of their other values."""
    lines = rendered.text.splitlines()
    line = lines[problem.line - 1] if problem.line <= len(lines) else ""
    return shows_user_text(rendered, problem.line) or any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", line) for word in _words(options)
    )


def _words(value: Any) -> Iterator[str]:
    """All numbers and truth values in `value`, as a template writes them."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _words(item)
    elif isinstance(value, int | float):
        yield str(value)
