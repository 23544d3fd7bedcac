"""`stop`: end an endpoint's process, here or, through the service, wherever it is."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

import click

from endpoint.cli.common import (
    Settings,
    common_options,
    existing_endpoint_dir,
    find_endpoint_dir,
    is_uuid,
    pass_settings,
)
from endpoint.config.endpoint_json import stored_endpoint_id
from endpoint.errors import AlreadyRunning, ConfigError, EndpointError, ExitStatus, Mender, Stage

PATIENCE = 60.0  # seconds
NEWS_EVERY = 10.0  # seconds


class StopFailure(EndpointError):
    """The process doesn't end, or may not be ended by us."""

    mender = Mender.ADMIN
    stage = Stage.STOP
    code = "NOT_STOPPED"
    exit_status = ExitStatus.FAILED


@click.command("stop")
@click.argument("name_or_uuid", default="default")
@click.option("--remote", is_flag=True, help="Have the service stop it wherever it runs, known by its UUID.")
@click.option("--force", is_flag=True, help="Kill the process if it has not ended in time.")
@click.option("--timeout", type=click.FloatRange(min=0), default=PATIENCE, show_default=True, help="Seconds to wait.")
@common_options
@pass_settings
def stop(settings: Settings, name_or_uuid: str, remote: bool, force: bool, timeout: float) -> None:
    """Stop an endpoint, and wait until it has ended."""
    if not remote:
        stop_here(existing_endpoint_dir(settings, name_or_uuid), force=force, timeout=timeout)
        return
    endpoint_dir = _stop_remotely(settings, name_or_uuid)
    if endpoint_dir is not None and _is_running_here(endpoint_dir):
        stop_here(endpoint_dir, force=force, timeout=timeout)


def stop_here(endpoint_dir: Path, *, force: bool = False, timeout: float = PATIENCE) -> bool:
    """End the endpoint's process on this host and wait for it; False if there was none.

    AlreadyRunning if it is on another host; StopFailure if it doesn't end within `timeout` seconds.
    """
    from endpoint.config.paths import PID
    from endpoint.lease import Lease, open_process, read_lease

    name, path = endpoint_dir.name, endpoint_dir / PID
    found = read_lease(path)
    if found.state == "elsewhere":
        raise AlreadyRunning(
            f"The endpoint {name} runs on {found.host or 'another host'}, as process {found.pid}",
            hint=f"Stop it there, or with: globus-compute-endpoint stop --remote {name}",
            stage=Stage.STOP,
            code="RUNS_ELSEWHERE",
        )
    if found.state == "stale":
        Lease.take(path).release()
    process = open_process(found) if found.state == "running" else None
    if process is None:
        click.echo(f"The endpoint {name} is not running.", err=True)
        return False
    try:
        click.echo(f"Stopping the endpoint {name} (process {found.pid}) ...", err=True)
        _end(process, name, force=force, timeout=timeout)
    finally:
        os.close(process)
    if read_lease(path).state == "stale":  # it was killed, by us or by somebody else
        Lease.take(path).release()
    click.echo(f"The endpoint {name} has stopped.", err=True)
    return True


def _end(process: int, name: str, *, force: bool, timeout: float) -> None:
    _signal(process, name, signal.SIGTERM)
    if _wait(process, timeout, news=f"Still waiting for {name}, which may have running tasks ..."):
        return
    if not force:
        raise StopFailure(
            f"The endpoint {name} has not ended within {timeout:g} s",
            hint="Look into its endpoint.log; wait longer with --timeout, or kill it with --force",
        )
    click.echo(f"Killing the endpoint {name}.", err=True)
    _signal(process, name, signal.SIGKILL)
    if not _wait(process, NEWS_EVERY):
        raise StopFailure(f"The endpoint {name} can't even be killed", hint="Its file system may hang; look at dmesg")


def _signal(process: int, name: str, number: signal.Signals) -> None:
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, number)
    except PermissionError as error:
        raise StopFailure(
            f"The endpoint {name} belongs to another user", hint="Run the command as that user, or as root"
        ) from error


def _wait(process: int, timeout: float, news: str = "") -> bool:
    """Whether the process has ended within `timeout` seconds; says `news` now and then."""
    poller = select.poll()
    poller.register(process, select.POLLIN)
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if poller.poll(max(0, min(left, NEWS_EVERY)) * 1000):
            return True
        if left <= 0:
            return False
        if news and left > NEWS_EVERY:
            click.echo(news, err=True)


def _is_running_here(endpoint_dir: Path) -> bool:
    from endpoint.config.paths import PID
    from endpoint.lease import read_lease

    return read_lease(endpoint_dir / PID).state == "running"


def _stop_remotely(settings: Settings, name_or_uuid: str) -> Path | None:
    from endpoint.cli.remote import compute_service

    endpoint_dir = find_endpoint_dir(settings, name_or_uuid)
    if endpoint_dir is None and is_uuid(name_or_uuid):
        endpoint_id: str | None = name_or_uuid.lower()
    else:
        endpoint_dir = existing_endpoint_dir(settings, name_or_uuid)
        endpoint_id = stored_endpoint_id(endpoint_dir)
    if endpoint_id is None:
        raise ConfigError(
            f"The endpoint {name_or_uuid} has no id, as it has never been registered",
            hint="There is nothing to stop",
            stage=Stage.STOP,
            code="NEVER_REGISTERED",
        )
    compute_service(settings, endpoint_dir).lock(endpoint_id)
    click.echo(f"The service stops the endpoint {endpoint_id}.", err=True)
    return endpoint_dir
