"""`delete`: an endpoint's registration, and its directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import click

from endpoint.cli.common import (
    Settings,
    common_options,
    confirm,
    existing_endpoint_dir,
    find_endpoint_dir,
    is_uuid,
    pass_settings,
)
from endpoint.config.endpoint_json import stored_endpoint_id
from endpoint.errors import AlreadyRunning, ConfigError, EndpointBlocked, EndpointError, ExitStatus, Stage

NOT_FOUND = "404"


@click.command("delete")
@click.argument("name_or_uuid", default="default")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--force", is_flag=True, help="Stop the endpoint if it runs, and go on when a part can't be deleted.")
@common_options
@pass_settings
def delete(settings: Settings, name_or_uuid: str, yes: bool, force: bool) -> int:
    """Delete an endpoint from the web service, and its directory."""
    endpoint_dir = find_endpoint_dir(settings, name_or_uuid)
    if endpoint_dir is None and is_uuid(name_or_uuid) and force:
        endpoint_id: str | None = name_or_uuid.lower()
    else:
        endpoint_dir = existing_endpoint_dir(settings, name_or_uuid)
        endpoint_id = _endpoint_id(endpoint_dir, force=force)
    what = " ".join([*([endpoint_dir.name] if endpoint_dir else []), *([f"({endpoint_id})"] if endpoint_id else [])])
    where = f" and the directory {endpoint_dir}" if endpoint_dir else ""
    if not confirm(f"Delete the endpoint {what}{where}?", yes=yes):
        click.echo("Nothing was deleted.", err=True)
        return ExitStatus.FAILED
    if endpoint_dir:
        _end_process(endpoint_dir, force=force)
    if endpoint_id:
        _forgiving(lambda: _unregister(settings, endpoint_dir, endpoint_id, force=force), force=force)
    if endpoint_dir:
        _remove(endpoint_dir)
    click.echo(f"The endpoint {what} is deleted.", err=True)
    return ExitStatus.OK


def _endpoint_id(endpoint_dir: Path, *, force: bool) -> str | None:
    try:
        return stored_endpoint_id(endpoint_dir)
    except ConfigError as error:
        if not force:
            raise
        click.echo(error.failure.for_admin(), err=True)
        return None


def _end_process(endpoint_dir: Path, *, force: bool) -> None:
    """See that no process uses the directory; AlreadyRunning where that can't be said, or `force` is not given."""
    from endpoint.cli.stop import stop_here
    from endpoint.config.paths import PID
    from endpoint.lease import read_lease

    found = read_lease(endpoint_dir / PID)
    if found.state == "running" and not force:
        raise AlreadyRunning(
            f"The endpoint {endpoint_dir.name} runs, as process {found.pid}",
            hint="Stop it first, or add --force, which stops it",
            stage=Stage.CONFIGURE,
        )
    if found.state in ("running", "elsewhere"):
        _forgiving(lambda: stop_here(endpoint_dir, force=force), force=force and found.state == "elsewhere")


def _unregister(settings: Settings, endpoint_dir: Path | None, endpoint_id: str, *, force: bool) -> None:
    from endpoint.cli.remote import compute_service

    service = compute_service(settings, endpoint_dir)
    try:
        if not force and service.status(endpoint_id).get("status") == "online":
            raise AlreadyRunning(
                f"The service says that the endpoint {endpoint_id} is online, perhaps on another host",
                hint="Stop it first (globus-compute-endpoint stop --remote), or add --force",
                stage=Stage.CONFIGURE,
            )
        service.delete(endpoint_id)
    except EndpointBlocked as error:
        if NOT_FOUND not in error.failure.reason:
            raise
        click.echo(f"The service has no endpoint {endpoint_id} of yours (any more).", err=True)


def _forgiving(action: Callable[[], object], *, force: bool) -> None:
    """Do it; with `force` a failure is told, and no reason to stop."""
    try:
        action()
    except EndpointError as error:
        if not force:
            raise
        click.echo(error.failure.for_admin(), err=True)
        click.echo("Going on, as --force is given.", err=True)


def _remove(endpoint_dir: Path) -> None:
    try:
        if endpoint_dir.is_symlink():
            endpoint_dir.unlink()
        else:
            shutil.rmtree(endpoint_dir)
    except OSError as error:
        raise ConfigError(
            f"The directory {endpoint_dir} can't be removed: {error.strerror} ({error.filename})",
            hint="Remove the rest by hand",
            stage=Stage.CONFIGURE,
            code="NOT_REMOVED",
        ) from error
