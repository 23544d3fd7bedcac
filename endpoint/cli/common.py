"""What the commands share: settings of the invocation, endpoint names, questions, and output."""

from __future__ import annotations

import functools
import json
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from endpoint.config.endpoint_json import stored_endpoint_id
from endpoint.errors import ConfigError, Stage, UsageError

PROGRAM_NAMES = ("globus-compute-endpoint", "gce")
ENDPOINT_DIR_VARIABLE = "GLOBUS_COMPUTE_ENDPOINT_DIR"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """The options that every command understands, as given on this command line."""

    config_dir: str | None = None
    debug: bool = False
    log_to_console: bool = False
    color: bool = True
    json: bool = False
    reported: bool = False  # somebody else shows the failure that ends this command
    logged: bool = False  # it is in the log already

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

    @functools.wraps(command)
    def with_logs(*args: Any, **kwargs: Any) -> Any:
        settings = click.get_current_context().ensure_object(Settings)
        if settings.debug or settings.log_to_console:
            from endpoint.logs import set_up_logs

            set_up_logs(None, debug=settings.debug, console=True, color=settings.color)
        return command(*args, **kwargs)

    wrapped: Any = with_logs
    for flag, field, help_text in (
        ("--no-color", "color", "Show log lines without colors."),
        ("--log-to-console", "log_to_console", "Show log lines on the terminal too."),
        ("--debug", "debug", "Log details."),
    ):
        remember = _remember(field, invert=field == "color")
        wrapped = click.option(flag, is_flag=True, expose_value=False, callback=remember, help=help_text)(wrapped)
    return cast(F, wrapped)


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


def plain(text: str) -> str:
    """`text` in one line without what moves a terminal's cursor: it may be somebody else's."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns below their headings."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows)]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def confirm(question: str, *, yes: bool) -> bool:
    """Ask on stderr, so that a redirected stdout stays clean; no answer at all is a usage error, not a yes."""
    if yes:
        return True
    click.echo(f"{question} [y/N]: ", err=True, nl=False)
    answer = sys.stdin.readline()
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
    """`name`, if it can name an endpoint; UsageError otherwise."""
    from endpoint.config.paths import name_problem

    problem = name_problem(name)
    if problem is None and is_uuid(name):
        problem = "An endpoint's name can't read as a UUID, which commands take for an endpoint's id"
    if problem:
        raise UsageError(problem, hint="Choose another name", code="BAD_NAME")
    return name


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
                if stored_endpoint_id(path) == wanted:
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
