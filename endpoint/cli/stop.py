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
from endpoint.errors import AlreadyRunning, ConfigError, EndpointError, ExitStatus, Mender, Stage, UsageError

PATIENCE = 60.0  # seconds
NEWS_EVERY = 10.0  # seconds
MONITOR_S = 10.0  # a monitor ends when its manager has
MONITOR = b"endpoint.privileged.monitor"


class StopFailure(EndpointError):
    """The process doesn't end, or may not be ended by us."""

    mender = Mender.ADMIN
    stage = Stage.STOP
    code = "NOT_STOPPED"
    exit_status = ExitStatus.FAILED


@click.command("stop")
@click.argument("name_or_uuid", default="default")
@click.option("--remote", is_flag=True, help="Have the service stop it wherever it runs, known by its UUID.")
@click.option("--keep-users", is_flag=True, help="Let the user endpoints of several users run on, for the next start.")
@click.option("--force", is_flag=True, help="Kill the process if it has not ended in time.")
@click.option("--timeout", type=click.FloatRange(min=0), default=PATIENCE, show_default=True, help="Seconds to wait.")
@common_options
@pass_settings
def stop(settings: Settings, name_or_uuid: str, remote: bool, keep_users: bool, force: bool, timeout: float) -> None:
    """Stop an endpoint, and wait until it has ended."""
    if remote and keep_users:
        raise UsageError("--remote stops the user endpoints too", hint="Leave out --remote or --keep-users")
    if not remote:
        here = existing_endpoint_dir(settings, name_or_uuid)
        stop_here(here, force=force, timeout=timeout, keep_users=keep_users)
        return
    endpoint_dir = _stop_remotely(settings, name_or_uuid)
    if endpoint_dir is not None and _is_running_here(endpoint_dir):
        stop_here(endpoint_dir, force=force, timeout=timeout)


def stop_here(endpoint_dir: Path, *, force: bool = False, timeout: float = PATIENCE, keep_users: bool = False) -> bool:
    """End the endpoint's process on this host and wait for it; False if there was none.

    keep_users: the user endpoints of an endpoint with a monitor run on.
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
    if found.state == "stale" and _is_ours(endpoint_dir):
        Lease.take(path).release()
    process = open_process(found) if found.state == "running" else None
    if process is None:
        click.echo(f"The endpoint {name} is not running.", err=True)
        return False
    monitor = _monitor_of(found.pid)
    try:
        _refuse_others(found.pid, endpoint_dir)
        if keep_users and monitor is None:
            raise UsageError(f"The user endpoints of {name} can't outlive it", hint="Leave out --keep-users")
        click.echo(f"Stopping the endpoint {name} (process {found.pid}) ...", err=True)
        number = signal.SIGUSR2 if keep_users else signal.SIGTERM
        _end(process, name, number, force=force, timeout=timeout)
        if monitor is not None:
            _wait(monitor, MONITOR_S)
    finally:
        os.close(process)
        if monitor is not None:
            os.close(monitor)
    if read_lease(path).state == "stale" and _is_ours(endpoint_dir):  # it was killed, by us or by somebody else
        Lease.take(path).release()
    click.echo(f"The endpoint {name} has stopped.", err=True)
    return True


def _is_ours(endpoint_dir: Path) -> bool:
    """Whether the directory is ours to write into; root leaves a service user's alone."""
    return endpoint_dir.stat().st_uid == os.geteuid()


def _refuse_others(pid: int | None, endpoint_dir: Path) -> None:
    """A PID file that somebody else can write must not have root end other people's processes."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        actual = int(next(line for line in lines if line.startswith("Uid:")).split()[1])
        expected = endpoint_dir.stat().st_uid
        if actual not in (expected, os.geteuid()) or (actual == 0 and expected != 0):
            raise StopFailure(
                f"The PID file of {endpoint_dir.name} names a process of somebody else, {pid}",
                hint=f"Look who has written {endpoint_dir}/daemon.pid",
                code="NOT_THE_ENDPOINT",
            )


def _monitor_of(pid: int | None) -> int | None:
    """A pidfd of the monitor that is the parent of a manager, if it has one."""
    with suppress(OSError, ValueError, IndexError):
        parent = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        descriptor = os.pidfd_open(parent)
        if MONITOR in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0"):
            return descriptor
        os.close(descriptor)
    return None


def _end(process: int, name: str, number: signal.Signals, *, force: bool, timeout: float) -> None:
    _signal(process, name, number)
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
