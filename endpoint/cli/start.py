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
from endpoint.errors import ConfigError, EndpointError, ExitStatus, Stage, UsageError

if TYPE_CHECKING:
    from endpoint.config.model import ManagerConfig
    from endpoint.lease import Lease
    from endpoint.wire.queues import Registration

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


def _start_options(command: F) -> F:
    for option in (
        click.option("--ready-fd", type=int, hidden=True),
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
    settings: Settings, endpoint_dir: Path, *, detach: bool, endpoint_uuid: str | None, ready_fd: int | None
) -> int:
    """Run the endpoint; returns its exit status, or, detached, that of its start."""
    checked_name(endpoint_dir.name)
    if endpoint_uuid is not None and not is_uuid(endpoint_uuid):
        raise UsageError(f"--endpoint-uuid: {endpoint_uuid!r} is not a UUID")
    if detach:
        from endpoint.cli.detach import start_detached

        return start_detached(settings, endpoint_dir, endpoint_uuid)
    if ready_fd is None:
        return run_endpoint(settings, endpoint_dir, endpoint_uuid, _Terminal(endpoint_dir.name))
    from endpoint.cli.detach import Reporter

    reporter = Reporter(ready_fd)
    try:
        return run_endpoint(settings, endpoint_dir, endpoint_uuid, reporter)
    except EndpointError as error:
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


def run_endpoint(settings: Settings, endpoint_dir: Path, endpoint_uuid: str | None, reporter: Any) -> int:
    """Load, register, run. `reporter` has `registering()`, `registered(id)` and `ready()`."""
    from endpoint.config.paths import PID
    from endpoint.lease import Lease
    from endpoint.manager.registration import register

    os.umask(0o077)
    _set_up_logs(settings, endpoint_dir, None)
    config = _load_config(endpoint_dir)
    _set_up_logs(settings, endpoint_dir, config)
    with Lease.take(endpoint_dir / PID) as lease:
        reporter.registering()
        endpoint_id, registration = register(endpoint_dir, config, endpoint_uuid)
        reporter.registered(endpoint_id)
        _set_up_logs(settings, endpoint_dir, config, endpoint_id)
        log.info("The endpoint starts", extra={"endpoint": endpoint_id})
        return _run_manager(endpoint_dir, config, registration, lease, reporter.ready)


def _run_manager(
    endpoint_dir: Path, config: ManagerConfig, registration: Registration, lease: Lease, ready: Callable[[], None]
) -> int:
    import asyncio

    from endpoint.manager.service import run_manager

    async def run() -> ExitStatus:
        # Whoever removes the PID file, perhaps from another host, wants this endpoint to stop.
        keeping = asyncio.create_task(lease.keep(lambda: os.kill(os.getpid(), signal.SIGTERM)))
        try:
            return await run_manager(endpoint_dir, config, registration, ready=ready)
        finally:
            keeping.cancel()

    return int(asyncio.run(run()))


def _load_config(endpoint_dir: Path) -> ManagerConfig:
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
    if config.identity_mapping_config_path:
        # To run it for its owner only would be another endpoint than the one that was asked for.
        raise ConfigError(
            f"{path} is for an endpoint that maps users to local accounts, which this version can't run",
            hint="Remove identity_mapping_config_path, for an endpoint that only its owner can use",
            code="NO_MULTI_USER",
        )
    _check_files(endpoint_dir)
    return config


def _check_files(endpoint_dir: Path) -> None:
    """Refuse to start where the first user would meet what is wrong; ConfigError tells all of it."""
    from endpoint.config.check import errors
    from endpoint.config.examine import Examiner
    from endpoint.config.report import refusal

    examiner = Examiner(None)
    examiner.folder(endpoint_dir)
    found = [problem for report in examiner.reports.values() for problem in report.problems]
    if bad := errors(found):
        raise refusal(bad)


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
    )
