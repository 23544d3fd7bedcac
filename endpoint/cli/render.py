"""`render-user-config`: what a template makes of a user's options, before any user tries."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from endpoint.cli.common import Settings, common_options, echo_json, existing_endpoint_dir, json_option, pass_settings
from endpoint.errors import ConfigError, ExitStatus, Stage, UsageError

if TYPE_CHECKING:
    from endpoint.config.model import ManagerConfig

F = TypeVar("F", bound=Callable[..., Any])


def _file(*names: str, help_text: str) -> Callable[[F], F]:
    return click.option(*names, type=click.File(encoding="utf-8"), metavar="FILE", help=help_text)


@click.command("render-user-config")
@click.option("-e", "--endpoint", metavar="NAME_OR_UUID", help="The endpoint whose template and schema are used.")
@_file("-t", "--template", help_text="Another template than the endpoint's.")
@_file("-o", "--user-options", help_text="The user's options: a JSON object.")
@_file("-s", "--user-schema", help_text="Another schema for them than the endpoint's.")
@_file("--parent-config", help_text="YAML for the variable _GC.parent_config, else the endpoint's config.yaml.")
@_file("--user-runtime", help_text="JSON for the variable _GC.user_runtime, else this Python.")
@_file("--mapped-identity", help_text="JSON for the variable _GC.mapped_identity, else you.")
@click.option("--check", is_flag=True, help="Show only what is wrong with the configuration, not itself.")
@json_option
@common_options
@pass_settings
def render_user_config(settings: Settings, /, endpoint: str | None, check: bool, **files: IO[str] | None) -> int:
    """Show the user endpoint configuration that a template makes of a user's options, and what is wrong with it.

    Of the files, at most one can be `-`, standard input. Nothing is started. Status 78 if the configuration is not
    valid.
    """
    from endpoint.config.rendering import Template, rendered

    _at_most_one_stdin(files)
    endpoint_dir = existing_endpoint_dir(settings, endpoint) if endpoint else None
    template = files["template"]
    if endpoint_dir is None and template is None:
        raise UsageError("Neither an endpoint nor a template is given", hint="Add --endpoint or --template")
    config = _parent_config(endpoint_dir, files["parent_config"])
    text, path, schema = _template(endpoint_dir, config, template)
    if files["user_schema"]:
        schema = _json_object(files["user_schema"], "the schema of user options")
    result, refused = rendered(
        Template(text, path),
        user_options_schema=schema,
        user_options=_json_object(files["user_options"], "user options") if files["user_options"] else {},
        user_runtime=_json_object(files["user_runtime"], "user runtime") if files["user_runtime"] else this_runtime(),
        parent_config=asdict(config),
        mapped_identity=_mapped_identity(files["mapped_identity"]),
    )
    found = refused.problems if refused else ()
    if settings.json:
        echo_json({"valid": not found, "config": result, "problems": [problem.to_dict() for problem in found]})
        return ExitStatus.BAD_CONFIG if found else ExitStatus.OK
    if not check:
        click.echo(result)
    for problem in found:
        click.echo(str(problem), err=True)
    if check and not found:
        click.echo("The configuration is valid.", err=True)
    return ExitStatus.BAD_CONFIG if found else ExitStatus.OK


def _at_most_one_stdin(files: dict[str, IO[str] | None]) -> None:
    if sum(1 for file in files.values() if file is not None and file.name == "<stdin>") > 1:
        raise UsageError("Several options read standard input", hint="Give at most one of them as -")


def _parent_config(endpoint_dir: Path | None, file: IO[str] | None) -> ManagerConfig:
    from endpoint.config.load import load_yaml
    from endpoint.config.model import load_manager_config, manager_config
    from endpoint.config.paths import CONFIG

    folder = endpoint_dir or Path.cwd()
    if file is not None:
        return manager_config(load_yaml(file.read(), file.name), folder)
    if endpoint_dir is not None:
        return load_manager_config(endpoint_dir / CONFIG)
    return manager_config(load_yaml("", "defaults"), folder)


def _template(
    endpoint_dir: Path | None, config: ManagerConfig, file: IO[str] | None
) -> tuple[str, Path, dict[str, Any] | None]:
    """The template's text, where it lies, and the schema of its options."""
    from endpoint.manager.templates import TemplateFiles

    if file is not None:
        schema = TemplateFiles.read(endpoint_dir, config).options_schema if endpoint_dir else None
        return file.read(), Path(file.name).absolute(), schema
    if endpoint_dir is None:
        raise AssertionError("one of the two was asked for")
    files = TemplateFiles.read(endpoint_dir, config)
    return files.text, files.path, files.options_schema


def _json_object(file: IO[str], what: str) -> dict[str, Any]:
    try:
        document = json.load(file)
    except ValueError as error:
        raise ConfigError(f"{file.name}, for {what}, is not JSON: {error}", stage=Stage.RENDER) from error
    if not isinstance(document, dict):
        raise ConfigError(f"{file.name}, for {what}, is not a JSON object", stage=Stage.RENDER)
    return document


def this_runtime() -> dict[str, Any]:
    """What an SDK in this Python would say about itself."""
    from endpoint.cli.version import versions

    found = versions()
    return runtime(found.get("globus-compute-sdk") or "", found.get("globus-sdk") or "")


def runtime(compute_sdk: str, globus_sdk: str) -> dict[str, Any]:
    """As `this_runtime`, for SDKs of the given versions."""
    import platform
    import sys

    return {
        "globus_compute_sdk_version": compute_sdk,
        "globus_sdk_version": globus_sdk,
        "python_version": sys.version,
        "python": {
            "version": platform.python_version(),
            "version_description": sys.version,
            "version_tuple": list(sys.version_info[:3]),
            "version_info": list(sys.version_info),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
        },
        "platform": {
            "architecture": ["64bit" if sys.maxsize > 2**32 else "32bit", "ELF"],  # Python's own runs a program for it
            "machine": platform.machine(),
            "node": platform.node(),
            "platform": platform.platform(),
            "processor": platform.processor(),
            "release": platform.release(),
            "system": platform.system(),
            "version": platform.version(),
        },
    }


def _mapped_identity(file: IO[str] | None) -> dict[str, Any]:
    if file is not None:
        return _json_object(file, "mapped identity")
    from endpoint.manager.local_user import this_user

    return this_user(os.environ).for_template()
