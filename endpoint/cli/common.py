"""What the commands share: settings of the invocation, endpoint names, questions, and output."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from endpoint.errors import ConfigError, Stage, UsageError

ENDPOINT_DIR_VARIABLE = "GLOBUS_COMPUTE_ENDPOINT_DIR"
MAX_NAME_LENGTH = 128
_FORBIDDEN_IN_NAMES = re.compile(r"[\\/\s'\"]")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """The options that every command understands, as given on this command line."""

    config_dir: str | None = None
    debug: bool = False
    log_to_console: bool = False
    color: bool = True
    json: bool = False

    @property
    def compute_dir(self) -> Path:
        """The directory that holds every endpoint's own directory; may not exist yet."""
        from endpoint.config.paths import compute_dir

        return compute_dir(self.config_dir)


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _remember(field: str, *, invert: bool = False) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Settings), field, not value if invert else value)

    return callback


def common_options(command: F) -> F:
    """`--debug`, `--log-to-console`, `--no-color`: kept in the `Settings`, not passed to the command."""
    options = (
        click.option("--debug", is_flag=True, expose_value=False, callback=_remember("debug"), help="Log details."),
        click.option(
            "--log-to-console",
            is_flag=True,
            expose_value=False,
            callback=_remember("log_to_console"),
            help="Show log lines on the terminal too.",
        ),
        click.option(
            "--no-color",
            is_flag=True,
            expose_value=False,
            callback=_remember("color", invert=True),
            help="Show log lines without colors.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def config_dir_option(command: F) -> F:
    """`-c, --config-dir`, kept in the `Settings`."""
    return click.option(
        "-c",
        "--config-dir",
        metavar="DIR",
        expose_value=False,
        is_eager=True,
        callback=_remember("config_dir"),
        help="Where the endpoints' directories are; else $GLOBUS_COMPUTE_USER_DIR, else ~/.globus_compute.",
    )(command)


def json_option(command: F) -> F:
    """`--json`, kept in the `Settings`: the command prints one JSON document, and so do its failures."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_remember("json"),
        help="Print one JSON document, for programs.",
    )(command)


def echo_json(document: Any) -> None:
    """Print `document` as JSON on stdout."""
    click.echo(json.dumps(document, indent=2, default=str))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns below their headings."""
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows)]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def confirm(question: str, *, yes: bool) -> bool:
    """Ask on stderr, so that a redirected stdout stays clean; no answer at all is a usage error, not a yes."""
    if yes:
        return True
    click.echo(f"{question} [y/N]: ", err=True, nl=False)
    answer = click.get_text_stream("stdin").readline()
    if not answer:
        click.echo(err=True)
        raise UsageError("The question was not answered", hint="Answer it on a terminal, or add --yes")
    return answer.strip().lower() in ("y", "yes")


def is_uuid(text: str) -> bool:
    """Whether `text` reads as a UUID."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def checked_name(name: str) -> str:
    """`name`, if it can name an endpoint: it becomes a directory, and part of shell commands of batch jobs."""
    problem = None
    if not name:
        problem = "is empty"
    elif len(name) > MAX_NAME_LENGTH:
        problem = f"has {len(name)} characters, {MAX_NAME_LENGTH} are allowed"
    elif found := _FORBIDDEN_IN_NAMES.search(name):
        problem = f"has the character {found.group()!r}; white space, slashes, backslashes and quotes are not allowed"
    elif name.startswith("."):
        problem = "starts with a dot"
    elif is_uuid(name):
        problem = "reads as a UUID, which commands take for an endpoint's id"
    if problem:
        raise UsageError(f"The endpoint name {name!r} {problem}", hint="Choose another name", code="BAD_NAME")
    return name


def endpoint_id_in(endpoint_dir: Path) -> str | None:
    """The id that the service gave this endpoint when it last registered; None before the first time."""
    from endpoint.config.paths import ENDPOINT_JSON

    path = endpoint_dir / ENDPOINT_JSON
    try:
        document = json.loads(path.read_bytes())
        return str(uuid.UUID(document["endpoint_id"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a JSON object with an endpoint_id",
            hint="Restore it from a backup, or remove it: the next start then registers a new endpoint",
        ) from error


def endpoint_dirs(compute_dir: Path) -> list[Path]:
    """The directories of all configured endpoints, by name."""
    from endpoint.config.paths import CONFIG

    try:
        return sorted(path for path in compute_dir.iterdir() if (path / CONFIG).is_file())
    except (FileNotFoundError, NotADirectoryError):
        return []


def find_endpoint_dir(settings: Settings, name_or_uuid: str) -> Path | None:
    """The directory of the endpoint that the argument names; None for a UUID that no directory here has."""
    if from_environment := os.environ.get(ENDPOINT_DIR_VARIABLE):
        return Path(from_environment)
    if is_uuid(name_or_uuid):
        wanted = str(uuid.UUID(name_or_uuid))
        for path in endpoint_dirs(settings.compute_dir):
            try:
                if endpoint_id_in(path) == wanted:
                    return path
            except ConfigError:  # another endpoint's broken file is not this command's concern
                continue
        return None
    return settings.compute_dir / checked_name(name_or_uuid)


def existing_endpoint_dir(settings: Settings, name_or_uuid: str) -> Path:
    """As `find_endpoint_dir`, where the command can't do without the directory."""
    path = find_endpoint_dir(settings, name_or_uuid)
    if path is None or not path.is_dir():
        where = f"in {settings.compute_dir}" if path is None else f"at {path}"
        known = ", ".join(found.name for found in endpoint_dirs(settings.compute_dir))
        raise ConfigError(
            f"There is no endpoint {name_or_uuid!r} {where}",
            hint=f"Endpoints here: {known}"
            if known
            else f"Make it with: globus-compute-endpoint configure {name_or_uuid}",
            stage=Stage.CONFIGURE,
            code="NO_SUCH_ENDPOINT",
        )
    return path
