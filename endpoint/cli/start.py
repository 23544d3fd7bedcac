"""`start` and `restart`: register an endpoint and run it, in the foreground or detached."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from endpoint.cli.common import Settings, checked_name, common_options, existing_endpoint_dir, is_uuid, pass_settings
from endpoint.errors import ConfigError, EndpointError, ExitStatus, MappingError, Stage, UsageError

if TYPE_CHECKING:
    import socket

    from endpoint.config.model import ManagerConfig
    from endpoint.lease import Lease
    from endpoint.wire.queues import Registration

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


def _start_options(command: F) -> F:
    for option in (
        click.option("--ready-fd", type=int, hidden=True),
        click.option("--monitor-fd", type=int, hidden=True),
        click.option(
            "--policy",
            metavar="FILE",
            help="For an endpoint of several users, started by root: what its monitor allows; else NAME.policy.json or "
            "policy.json in /etc/globus-compute-endpoint.",
        ),
        click.option("--endpoint-uuid", metavar="UUID", help="Register with this id."),
        click.option("--detach", is_flag=True, help="Come back as soon as the endpoint is connected; it runs on."),
    ):
        command = option(command)
    return command


@click.command("start")
@click.argument("name_or_uuid", default="default")
@_start_options
@click.option("--die-with-parent", is_flag=True, hidden=True)
@common_options
@pass_settings
def start(settings: Settings, /, name_or_uuid: str, die_with_parent: bool, **options: Any) -> int:
    """Register an endpoint with the web service, and run it until it is stopped."""
    if die_with_parent:
        # Managers of the official endpoint before 4.16 start user endpoints so.
        from endpoint.cli.processes import run_user_endpoint

        return run_user_endpoint(settings, name_or_uuid)
    return start_endpoint(settings, existing_endpoint_dir(settings, name_or_uuid), **options)


@click.command("restart")
@click.argument("name_or_uuid", default="default")
@_start_options
@common_options
@pass_settings
def restart(settings: Settings, /, name_or_uuid: str, **options: Any) -> int:
    """Stop an endpoint if it runs, and start it."""
    from endpoint.cli.stop import stop_here

    endpoint_dir = existing_endpoint_dir(settings, name_or_uuid)
    stop_here(endpoint_dir)
    return start_endpoint(settings, endpoint_dir, **options)


def start_endpoint(
    settings: Settings,
    endpoint_dir: Path,
    *,
    detach: bool,
    endpoint_uuid: str | None,
    ready_fd: int | None,
    monitor_fd: int | None,
    policy: str | None,
) -> int:
    """Run the endpoint; returns its exit status, or, detached, that of its start."""
    from endpoint.cli.privileged_start import become_monitor, belongs_to_monitor

    checked_name(endpoint_dir.name)
    if endpoint_uuid is not None and not is_uuid(endpoint_uuid):
        raise UsageError(f"--endpoint-uuid: {endpoint_uuid!r} is not a UUID")
    for_monitor = monitor_fd is None and belongs_to_monitor(endpoint_dir)
    if policy is not None and not for_monitor:
        raise UsageError(
            "--policy is for an endpoint of several users, which root starts and whose directory is the service user's",
            hint=f"Give it the directory: chown -R globus-compute {endpoint_dir}",
        )
    if detach:
        from endpoint.cli.detach import start_detached

        return start_detached(settings, endpoint_dir, endpoint_uuid, policy=policy, with_monitor=for_monitor)
    if for_monitor:
        become_monitor(settings, endpoint_dir, policy=policy, endpoint_uuid=endpoint_uuid, ready_fd=ready_fd)
    if ready_fd is None:
        return run_endpoint(settings, endpoint_dir, endpoint_uuid, _Terminal(endpoint_dir.name), monitor_fd)
    from endpoint.cli.detach import Reporter

    reporter = Reporter(ready_fd)
    try:
        return run_endpoint(settings, endpoint_dir, endpoint_uuid, reporter, monitor_fd)
    except EndpointError as error:
        # Before whoever waits hears of it, and looks into the log.
        log.critical(error.failure.for_admin(), extra=error.failure.fields)
        settings.logged = True
        settings.reported = reporter.failed(error)
        raise


class _Terminal:
    """Tells the person at the terminal how the start goes; the id goes to stdout, where scripts look for it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def registering(self) -> None:
        click.echo(f"Registering the endpoint {self.name} ...", err=True)

    def registered(self, endpoint_id: str) -> None:
        click.echo(id_line(endpoint_id))
        sys.stdout.flush()

    def ready(self) -> None:
        click.echo("Connected. Stop it with Ctrl-C, or with: globus-compute-endpoint stop " + self.name, err=True)


def id_line(endpoint_id: str) -> str:
    """The line that scripts look for, as the official program prints it."""
    return f"        >>> Endpoint ID: {endpoint_id} <<<"


def run_endpoint(
    settings: Settings, endpoint_dir: Path, endpoint_uuid: str | None, reporter: Any, monitor_fd: int | None = None
) -> int:
    """Load, register, run. `reporter` has `registering()`, `registered(id)` and `ready()`."""
    from endpoint.config.paths import PID
    from endpoint.lease import Lease
    from endpoint.manager.registration import register

    os.umask(0o077)
    monitor = _monitor(monitor_fd)
    _set_up_logs(settings, endpoint_dir, None)
    config = _load_config(endpoint_dir, multi_user=monitor is not None)
    _set_up_logs(settings, endpoint_dir, config)
    with Lease.take(endpoint_dir / PID) as lease:
        reporter.registering()
        endpoint_id, registration = register(endpoint_dir, config, endpoint_uuid, multi_user=monitor is not None)
        reporter.registered(endpoint_id)
        _set_up_logs(settings, endpoint_dir, config, endpoint_id)
        log.info("The endpoint starts", extra={"endpoint": endpoint_id})
        return _run_manager(endpoint_dir, config, registration, lease, reporter.ready, monitor)


def _run_manager(
    endpoint_dir: Path,
    config: ManagerConfig,
    registration: Registration,
    lease: Lease,
    ready: Callable[[], None],
    monitor: socket.socket | None,
) -> int:
    import asyncio

    from endpoint.manager.service import run_manager

    async def manage() -> ExitStatus:
        if monitor is None:
            return await run_manager(endpoint_dir, config, registration, ready=ready)
        from endpoint.manager.multi_user import run_multi_user_manager

        return await run_multi_user_manager(endpoint_dir, config, registration, ready=ready, monitor=monitor)

    async def run() -> ExitStatus:
        # Whoever removes the PID file, perhaps from another host, wants this endpoint to stop.
        keeping = asyncio.create_task(lease.keep(lambda: os.kill(os.getpid(), signal.SIGTERM)))
        try:
            return await manage()
        finally:
            keeping.cancel()

    return int(asyncio.run(run()))


def _monitor(descriptor: int | None) -> socket.socket | None:
    """The channel to the monitor that has started this process."""
    if descriptor is None:
        return None
    import socket

    from endpoint.privileged.client_files import keep_from_children

    try:
        channel = socket.socket(fileno=descriptor)
    except OSError as error:
        raise UsageError("--monitor-fd is used by the monitor, and by nobody else") from error
    channel.set_inheritable(False)
    keep_from_children(os.environ)
    return channel


def _load_config(endpoint_dir: Path, *, multi_user: bool) -> ManagerConfig:
    from endpoint.config.model import load_manager_config
    from endpoint.config.paths import CONFIG

    path = endpoint_dir / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"There is no {path}",
            hint="Make the endpoint anew with: globus-compute-endpoint configure, or restore the file",
            stage=Stage.CONFIGURE,
        )
    config = load_manager_config(path)
    _check_kind(path, config, multi_user=multi_user)
    _check_files(endpoint_dir)
    return config


def _check_kind(path: Path, config: ManagerConfig, *, multi_user: bool) -> None:
    """Refuse to run another kind of endpoint than the one that was asked for."""
    if config.identity_mapping_config_path and not multi_user:
        raise ConfigError(
            f"{path} is for an endpoint that maps users to local accounts, and this process can't become other users",
            hint="Let root start it, or a service with CAP_SETUID and CAP_SETGID, and give the directory to the "
            f"service user: chown -R globus-compute {path.parent}. For an endpoint that only its owner can use, remove "
            "identity_mapping_config_path",
            code="NO_PRIVILEGES",
        )
    if multi_user and not config.identity_mapping_config_path:
        raise ConfigError(
            f"{path} names no identity mapping, without which this endpoint would start nothing for anybody",
            hint="Set identity_mapping_config_path; or let the endpoint's only user own the directory and start it",
            code="NO_MAPPING",
        )


def _check_files(endpoint_dir: Path) -> None:
    """Refuse to start where the first user would meet what is wrong; ConfigError tells all of it.

    MappingError where only the identity mapping is wrong, which has an exit status of its own.
    """
    from endpoint.config.check import errors
    from endpoint.config.examine import Examiner
    from endpoint.config.report import refusal

    examiner = Examiner(None)
    examiner.folder(endpoint_dir)
    found = [
        (report.kind, problem) for report in examiner.reports.values() for problem in errors(list(report.problems))
    ]
    if not found:
        return
    told = refusal([problem for _, problem in found])
    if all(kind == "identity-mapping" for kind, _ in found):
        raise MappingError(told.failure.reason, detail=told.failure.detail)
    raise told


def _set_up_logs(
    settings: Settings, endpoint_dir: Path, config: ManagerConfig | None, endpoint_id: str | None = None
) -> None:
    from endpoint.config.paths import LOG
    from endpoint.logs import set_up_logs

    set_up_logs(
        endpoint_dir / LOG,
        debug=settings.debug or bool(config and config.debug),
        console=settings.log_to_console,
        color=settings.color,
        json_lines=config is not None and config.log_format == "json",
        process={"endpoint": endpoint_id} if endpoint_id else None,
        name=endpoint_dir.name,
    )
