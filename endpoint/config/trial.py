"""A template examined: its syntax, and what it makes of example options. For files, and for templates in a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from endpoint.config import paths
from endpoint.config.check import errors, problems
from endpoint.config.model import ManagerConfig, manager_config
from endpoint.config.option_examples import example_options
from endpoint.config.parse import parse_yaml
from endpoint.config.rendering import Template, render_user_config
from endpoint.config.report import InvalidConfig, InvalidOptions, Problem
from endpoint.config.user_options import schema_faults
from endpoint.errors import EndpointError


@dataclass(frozen=True)
class Facts:
    """What a template knows beyond the user's options, for trying it: see `rendering.render_user_config`."""

    user_runtime: Mapping[str, Any]
    mapped_identity: Mapping[str, Any]
    environ: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Trial:
    """What was found in a template; `variables` are those that it takes from outside, None where nobody can tell."""

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    variables: frozenset[str] | None = None


def tried(
    text: str,
    path: Path,
    schema: dict[str, Any] | None,
    config: ManagerConfig | None,
    facts: Callable[[], Facts] | None,
) -> Trial:
    """Examine the template `text`, which lies, or would lie, at `path`; its problems are of that file.

    schema: of its options. config: of its endpoint. facts: asked once it is to be rendered; None leaves that out.
    """
    template = Template(text, path.absolute())
    try:
        variables = template.variables()
    except InvalidConfig as error:
        return Trial(tuple(replace(problem, source=str(path)) for problem in error.problems))
    except EndpointError as error:
        return Trial((Problem(str(path), 1, 1, "", error.failure.reason),))
    found: list[Problem] = []
    notes: list[str] = []
    if template.is_data:
        # By the schema of templates, which knows all that stands there already: also without any options.
        found = errors(problems(parse_yaml(text, str(path)), "user-template"))
    elif path.suffix != ".j2":
        notes.append("read as text that becomes YAML, as it is no YAML yet; a name that ends in .j2 would say so")
    if facts is not None:
        rendered, more = _renderings(template, path, schema, config, facts())
        found += rendered
        notes += more
    return Trial(tuple(found), tuple(notes), variables)


def _renderings(
    template: Template, path: Path, schema: dict[str, Any] | None, config: ManagerConfig | None, facts: Facts
) -> tuple[list[Problem], list[str]]:
    """What is wrong with the template's output for each set of example options."""
    parent = asdict(config or manager_config(parse_yaml("", paths.CONFIG), path.parent))
    found: dict[Problem, None] = {}
    notes: list[str] = []
    for options in example_options(schema) if schema is not None else [{}]:
        if schema and (unfit := sorted({str(fault.path[0]) for fault in schema_faults(options, schema) if fault.path})):
            notes.append(f"not tried with {', '.join(unfit)}: the schema has no example that fits, or a bad one")
            options = {name: value for name, value in options.items() if name not in unfit}
        try:
            render_user_config(
                template=template.text,
                template_path=template.path,
                user_options_schema=schema,
                user_options=options,
                user_runtime=dict(facts.user_runtime),
                parent_config=parent,
                mapped_identity=facts.mapped_identity,
                environ=facts.environ,
            )
        except (InvalidConfig, InvalidOptions) as error:
            for problem in error.problems:
                found[replace(problem, source=str(path)) if problem.source == path.name else problem] = None
        except EndpointError as error:
            if schema is None:
                notes.append(f"checked only as far as goes without options: {error.failure.reason}")
            else:
                found[_unrendered(path, options, error)] = None
    return list(found), list(dict.fromkeys(notes))


def _unrendered(path: Path, options: dict[str, Any], error: EndpointError) -> Problem:
    """The problem that nothing came out, at the line of the template that the error names."""
    given = f"with the example options {options!r}: " if options else "without options: "
    reason = error.failure.reason
    line = reason.rpartition(f"({path.name}:")[2].partition(")")[0]
    return Problem(str(path), int(line) if line.isdigit() else 1, 1, "", given + reason)
