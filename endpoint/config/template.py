"""From an endpoint's template and a user's options to the text of a user endpoint's configuration.

The template is the administrator's, and trusted; the options are a stranger's. Text of the user's comes out as a quoted
string, keys of mappings too, so that in the place of a value it stays one value. Besides, user text in the output is
marked while the template runs, and the output is read twice: as it is, and with a harmless word in each marked place.
Where the two don't have the same shape, a user's text has changed the configuration, and it is refused.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from endpoint.config.check import Problem, dotted, explain, problems, refusal
from endpoint.config.load import compose, read_nodes
from endpoint.config.sandbox import Sandbox
from endpoint.config.user_values import MARKS, guarded
from endpoint.errors import ConfigError, EndpointError, Stage, UserOptionsError

log = logging.getLogger(__name__)

RESERVED = ("parent_config", "user_runtime", "mapped_identity", "_GC")
SOURCE = "user endpoint configuration"
LONGEST_OUTPUT = 1024 * 1024
MOST_TOLD = 5  # problems in one message to a user
_STAND_IN = "user-text-1f0c"
_MARKED = re.compile(f"{MARKS[0]}[^{MARKS[1]}]*{MARKS[1]}")
_OUR_CLASSES = re.compile(r"'endpoint\.config\.user_values\.\w+ object'")
_SECRET_VARIABLES = ("GLOBUS_COMPUTE_CLIENT_SECRET", "FUNCX_SDK_CLIENT_SECRET")


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

    template: the text of the template; other templates that it names are read from the folder of `template_path`.
    user_options_schema: a JSON schema for `user_options`, which are the template's variables.
    user_runtime, parent_config, mapped_identity, environ (this process's variables where None): what the template
    knows as `_GC.user_runtime`, `_GC.parent_config`, `_GC.mapped_identity` and `_GC.env`.

    Raises UserOptionsError when the user's options are at fault, ConfigError when the template or the schema is.
    """
    check_user_options(user_options, user_options_schema)
    reserved = {
        "parent_config": parent_config,
        "mapped_identity": mapped_identity or {},
        "user_runtime": guarded(user_runtime),
        "env": {
            key: value
            for key, value in (os.environ if environ is None else environ).items()
            if key not in _SECRET_VARIABLES
        },
    }
    older_names = {name: reserved[name] for name in RESERVED if name != "_GC"}
    variables = {key: guarded(value, key) for key, value in user_options.items()}
    marked = _render(template, template_path, {**variables, **older_names, "_GC": reserved})
    text = marked.replace(MARKS[0], "").replace(MARKS[1], "")
    _check_output(text, _tame(marked), user_options)
    return text


def check_user_options(options: dict[str, Any], schema: dict[str, Any] | None) -> None:
    """Refuse options with reserved names, and those that don't fit `schema`; UserOptionsError names the option."""
    for name in RESERVED:
        if name in options:
            raise UserOptionsError(f"The option {name!r} is reserved: it can't be set by users.")
    if not schema:
        return
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
        errors = list(kind(schema, registry=Registry()).iter_errors(options))  # it must not fetch what the schema names
    except SchemaError as error:
        raise ConfigError(
            "The endpoint's schema for user options is not a JSON schema.", detail=error.message
        ) from error
    except (Unresolvable, re.error, RecursionError) as error:
        raise ConfigError("The endpoint's schema for user options can't be used.", detail=str(error)) from error
    found = [item for error in errors for item in explain(error)]
    if found:
        sentences = [
            (f"the option {dotted(path)!r}: " if path else "") + message + (f" ({hint})" if hint else "")
            for path, message, hint in found
        ]
        told = list(dict.fromkeys(sentences))
        more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
        raise UserOptionsError(
            f"The endpoint does not take these options: {'; '.join(told[:MOST_TOLD])}{more}.",
            hint="Change user_endpoint_config",
        )


def _render(template: str, template_path: Path, variables: dict[str, Any]) -> str:
    sandbox = Sandbox(template_path.parent)
    name = template_path.name
    try:
        used = meta.find_undeclared_variables(sandbox.parse(template))
        parsed = sandbox.from_string(template)
        pieces, size = [], 0
        for piece in parsed.generate(variables):
            size += len(piece)
            if size > LONGEST_OUTPUT:
                raise ConfigError(f"The template {name} renders to more than {LONGEST_OUTPUT} characters.").at(
                    Stage.RENDER
                )
            pieces.append(piece)
    except EndpointError:
        raise
    except jinja2.UndefinedError as error:
        missing = _OUR_CLASSES.sub("a user's value", str(error.message)).rstrip(".")
        raise UserOptionsError(
            f"The endpoint's configuration template needs something that was not given: {missing}.",
            hint="Set the option in user_endpoint_config",
        ) from error
    except jinja2.TemplateSyntaxError as error:
        where = f"{error.name or name}:{error.lineno}"
        raise ConfigError(f"The template {where}: {error.message}.").at(Stage.RENDER) from error
    except (
        jinja2.TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error).rstrip(".")
        raise ConfigError(f"The template {name} can't be rendered: {reason}.", stage=Stage.RENDER) from error
    for old in sorted(used & set(RESERVED) - {"_GC"}):
        log.warning("The template %s uses `%s`; write `_GC.%s`", name, old, old)
    return "".join(pieces)


def _tame(marked: str) -> str:
    """The output with a harmless word, another one each time, in each marked place."""
    numbers = itertools.count()
    return _MARKED.sub(lambda _: f'"{_STAND_IN}{next(numbers)}"', marked)


def _check_output(text: str, tame: str, options: Mapping[str, Any]) -> None:
    """Refuse `text` unless it has the shape of `tame` and is a valid configuration; says whose fault it is."""
    try:
        expected = compose(tame, SOURCE)
        read_nodes(expected, SOURCE)
    except ConfigError as error:
        error.at(Stage.RENDER)
        raise
    try:
        node = compose(text, SOURCE)
        document = read_nodes(node, SOURCE)
    except ConfigError as error:
        raise UserOptionsError(
            f"The endpoint's template can't take the text of these options: {error.failure.reason}."
        ) from error
    if not _alike(node, expected):
        raise UserOptionsError("The text of these options would change the configuration beyond its own place.")
    found = problems(document, "user")
    if not found:
        return
    refused = refusal(found)
    if any(_of_the_user(problem, tame, options) for problem in found):
        raise UserOptionsError(
            f"With these options the endpoint's configuration is not valid: {refused.failure.reason}",
            detail=refused.failure.detail,
        )
    raise refused.at(Stage.RENDER)


def _alike(node: Node | None, expected: Node | None) -> bool:
    """Whether two trees differ in nothing but the text of values, and of keys that are a user's."""
    if isinstance(expected, MappingNode):
        return (
            isinstance(node, MappingNode)
            and len(node.value) == len(expected.value)
            and all(
                _alike(key, wanted_key)
                and _alike(value, wanted)
                and (_STAND_IN in str(wanted_key.value) or key.value == wanted_key.value)
                for (key, value), (wanted_key, wanted) in zip(node.value, expected.value, strict=True)
            )
        )
    if isinstance(expected, SequenceNode):
        return (
            isinstance(node, SequenceNode)
            and len(node.value) == len(expected.value)
            and all(map(_alike, node.value, expected.value))
        )
    if node is None or expected is None:
        return node is expected
    return not isinstance(node, (MappingNode, SequenceNode)) and node.tag == expected.tag


def _of_the_user(problem: Problem, tame: str, options: Mapping[str, Any]) -> bool:
    """Whether the line of the problem shows something of the user's: a marked text, or one of their other values."""
    lines = tame.splitlines()
    line = lines[problem.line - 1] if problem.line <= len(lines) else ""
    return _STAND_IN in line or any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", line) for word in _words(options))


def _words(value: Any) -> Iterator[str]:
    """All numbers and truth values in `value`, as a template writes them."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _words(item)
    elif isinstance(value, int | float):
        yield str(value)
