"""`check-config`: every problem of every file that an administrator writes, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from endpoint.cli.common import Settings, common_options, echo_json, json_option, pass_settings
from endpoint.errors import ConfigError, ExitStatus, Stage, UserOptionsError

if TYPE_CHECKING:
    from endpoint.config.check import Problem
    from endpoint.config.load import Document

# kind: what messages call it
KINDS = {
    "endpoint": "configuration of an endpoint",
    "user": "configuration of a user endpoint",
    "template": "template of user endpoints' configurations",
    "user-options-schema": "schema of user options",
    "user-environment": "environment of user endpoints",
    "identity-mapping": "identity mapping",
}


@click.command("check-config")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--kind", type=click.Choice(list(KINDS)), help="What the file is; else its name or its content says.")
@json_option
@common_options
@pass_settings
def check_config(settings: Settings, /, files: tuple[Path, ...], kind: str | None) -> int:
    """Check configuration files; a directory stands for all files of that endpoint. Status 78 if one is not valid."""
    reports = [_report(path, kind or _kind_of(path)) for given in files for path in _files(given)]
    if settings.json:
        echo_json({"valid": all(report["valid"] for report in reports), "files": reports})
    else:
        for report in reports:
            _show(report)
    return ExitStatus.OK if all(report["valid"] for report in reports) else ExitStatus.BAD_CONFIG


def _files(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    from endpoint.config import paths

    names = [paths.CONFIG, paths.TEMPLATE, paths.PLAIN_TEMPLATE, paths.SCHEMA, paths.ENVIRONMENT]
    names.append(paths.IDENTITY_MAPPING)
    found = [given / name for name in names if (given / name).is_file()]
    if not found:
        raise ConfigError(f"There are no configuration files in {given}", stage=Stage.VALIDATE)
    return found


def _kind_of(path: Path) -> str:
    from endpoint.config import paths

    by_name = {
        paths.SCHEMA: "user-options-schema",
        paths.ENVIRONMENT: "user-environment",
        paths.IDENTITY_MAPPING: "identity-mapping",
        paths.EXAMPLE_IDENTITY_MAPPING: "identity-mapping",
        paths.PLAIN_TEMPLATE: "template",
    }
    if path.suffix == ".j2":
        return "template"
    if path.name in by_name:
        return by_name[path.name]
    if path.suffix == ".json":
        raise ConfigError(f"The name of {path} doesn't say what it is", hint=f"Add --kind, one of: {', '.join(KINDS)}")
    if path.name == paths.CONFIG:
        return "endpoint"
    return "user" if "\nengine:" in "\n" + _text(path) else "endpoint"


def _report(path: Path, kind: str) -> dict[str, Any]:
    """`{"file", "kind", "valid", "problems": [{source, line, column, path, message, hint}], "notes": [str]}`."""
    report: dict[str, Any] = {"file": str(path), "kind": kind, "notes": []}
    try:
        problems, report["notes"] = _checks()[kind](path)
        found = [asdict(problem) for problem in problems]
    except ConfigError as error:
        found = [
            {
                "source": str(path),
                "line": None,
                "column": None,
                "path": "",
                "message": error.failure.reason,
                "hint": error.failure.hint,
            }
        ]
    return report | {"valid": not found, "problems": found}


Findings = tuple[list["Problem"], list[str]]


def _checks() -> dict[str, Callable[[Path], Findings]]:
    return {
        "endpoint": _check_endpoint,
        "user": lambda path: _check_by_schema(path, "user"),
        "template": _check_template,
        "user-options-schema": _check_options_schema,
        "user-environment": lambda path: _check_by_schema(path, "user-environment"),
        "identity-mapping": lambda path: _check_by_schema(path, "identity-mapping"),
    }


def _document(path: Path) -> Document:
    from endpoint.config.load import load_yaml

    return load_yaml(_text(path), str(path))


def _check_by_schema(path: Path, schema: str) -> Findings:
    from endpoint.config.check import problems
    from endpoint.config.load import Document

    document = _document(path)
    if document.data is None:  # an empty file
        document = Document({}, document.source)
    return problems(document, schema), []


def _check_endpoint(path: Path) -> Findings:
    from endpoint.config.model import manager_config

    found, notes = _check_by_schema(path, "endpoint")
    if not found or any(problem.path == "engine" for problem in found):
        # Raises for a file of the older kind, and for files that it names and that are not there.
        manager_config(_document(path), path.parent)
    return found, notes


def _check_template(path: Path) -> Findings:
    """A template that needs options can't be judged whole without them, which is a note."""
    problem = rendered_problem(_text(path), path)
    if problem is None:
        return [], []
    hint = f"Try it with options: globus-compute-endpoint render-user-config -t {path} -o OPTIONS.json"
    return [], [f"Checked only as far as goes without options: {problem} {hint}"]


def rendered_problem(template: str, path: Path) -> str | None:
    """What a rendering without options lacks, None if nothing; ConfigError if the template itself is wrong."""
    from endpoint.cli.render import this_runtime
    from endpoint.config.load import load_yaml
    from endpoint.config.model import manager_config
    from endpoint.config.template import render_user_config
    from endpoint.manager.identity import this_user

    try:
        render_user_config(
            template=template,
            template_path=path.absolute(),
            user_options_schema=None,
            user_options={},
            user_runtime=this_runtime(),
            parent_config=asdict(manager_config(load_yaml("", "defaults"), path.parent)),
            mapped_identity=this_user().for_template(),
        )
    except UserOptionsError as error:
        return error.failure.reason
    return None


def _check_options_schema(path: Path) -> Findings:
    import jsonschema

    try:
        schema = json.loads(_text(path))
        jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator).check_schema(schema)
    except ValueError as error:
        raise ConfigError(f"It is not JSON: {error}") from error
    except jsonschema.SchemaError as error:
        raise ConfigError(f"It is not a JSON schema: {error.json_path}: {error.message}") from error
    return [], []


def _text(path: Path) -> str:
    from endpoint.config.model import read_text

    return read_text(path)


def _show(report: dict[str, Any]) -> None:
    what = KINDS[report["kind"]]
    if report["valid"]:
        click.echo(f"{report['file']}: valid ({what})")
    for problem in report["problems"]:
        at = f":{problem['line']}:{problem['column']}" if problem["line"] else ""
        path = f"{problem['path']}: " if problem["path"] else ""
        hint = f" ({problem['hint']})" if problem["hint"] else ""
        click.echo(f"{problem['source']}{at}: {path}{problem['message']}{hint}", err=True)
    for note in report["notes"]:
        click.echo(f"{report['file']}: {note}", err=True)
