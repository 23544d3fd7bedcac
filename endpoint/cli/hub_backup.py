"""`compute-hub backup` and `compute-hub restore`: a copy of the database, and back."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from endpoint.cli.common import Settings, echo_json, json_option, pass_settings
from endpoint.cli.hub_store import as_owner, database_option, database_path, directory_option
from endpoint.errors import ConfigError, Stage, UsageError

if TYPE_CHECKING:
    from endpoint.hub.backup import Copy

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@directory_option
@database_option
@json_option
@pass_settings
def backup(settings: Settings, file: Path, force: bool, directory: Path, database: Path | None) -> None:
    """Copy the hub's database, as it is at one moment, to FILE. The service may run or not.

    FILE is for its owner alone: it has what the hub knows, with secrets and tokens as hashes. What waits at the broker
    is not in it.
    """
    from endpoint.hub.backup import check, opened, write_copy

    path, target = database_path(directory, database), file.expanduser().absolute()
    if target.exists() and not force:
        raise UsageError(f"There is a file {target} already", hint="Name another, or add --force", stage=Stage.HUB)
    if not path.exists():
        raise ConfigError(
            f"There is no hub database {path}", hint="Name it with --directory or --database", stage=Stage.HUB
        )
    with as_owner(path):
        source = opened(path)
    with closing(source):
        _progress(f"Copying {path} ({_size(path.stat().st_size)})")
        write_copy(source, target)
    with closing(opened(target)) as copy:
        made = check(copy, target)
    _tell(settings, {"file": str(target)}, made, f"Copied {path} to {target}")


@click.command()
@click.argument("file", type=_FILE)
@directory_option
@database_option
@json_option
@pass_settings
def restore(settings: Settings, file: Path, directory: Path, database: Path | None) -> None:
    """Put a copy that `backup` has made in the place of the hub's database, which is kept beside it.

    Stop the hub first. What was registered or submitted after the copy was made is not known any more.
    """
    from endpoint.hub.backup import check, opened, put_back

    path, given = database_path(directory, database), file.expanduser().absolute()
    if not given.exists():
        raise ConfigError(f"There is no file {given}", stage=Stage.HUB)
    with closing(opened(given)) as source:
        found = check(source, given)
        _progress(f"Putting {given} ({_size(found.bytes)}) in the place of {path}")
        with as_owner(path):
            former = put_back(source, path)
    where = "" if former is None else f"\nThe former one is {former}"
    places = {"database": str(path), "former": None if former is None else str(former)}
    _tell(settings, places, found, f"{path} is now as in {given}{where}")


def _tell(settings: Settings, places: dict[str, Any], copy: Copy, words: str) -> None:
    if settings.json:
        echo_json({**places, "bytes": copy.bytes, "layout": copy.layout, "counts": copy.counts})
        return
    counts = ", ".join(f"{name} {number}" for name, number in copy.counts.items())
    click.echo(f"{words}\nIn it: {counts} ({_size(copy.bytes)})")


def _progress(sentence: str) -> None:
    if sys.stderr.isatty():
        click.echo(sentence, err=True)


def _size(number: int) -> str:
    return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"
