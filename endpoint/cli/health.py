"""`health`: whether an endpoint does its work, for scripts and for the end of an installation."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from endpoint.cli.common import (
    Settings,
    common_options,
    echo_json,
    existing_endpoint_dir,
    find_endpoint_dir,
    is_uuid,
    json_option,
    pass_settings,
    plain,
)
from endpoint.cli.doctor import finding_lines, quiet_libraries, user_options
from endpoint.errors import EndpointError, ExitStatus, LoginError, UsageError

if TYPE_CHECKING:
    from endpoint.config.model import ManagerConfig
    from endpoint.doctor.health import Report, Subject
    from endpoint.manager.login import ClientCredentials

DEFAULT_TIMEOUT_S = 60
LARGEST_SECRET = 4096  # bytes


@click.command("health")
@click.argument("name_or_uuid", default="default")
@click.option("--client-id", metavar="UUID", help="Ask, and submit the function, as this client.")
@click.option(
    "--client-secret-file",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="The file that has the client's secret alone; - reads it from standard input.",
)
@click.option("--own-client", is_flag=True, help="Submit the function as the endpoint itself, for several users too.")
@click.option("--no-task", is_flag=True, help="Submit no function.")
@click.option(
    "--options", metavar="FILE|JSON", help="Options for the template, where it needs other than its examples."
)
@click.option("--user", metavar="NAME", help="The local user who has to run the function.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=1, max=3600),
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    help="How long to wait for the heartbeat, and how long for the function's result.",
)
@json_option
@common_options
@pass_settings
def health(settings: Settings, /, name_or_uuid: str, **options: Any) -> int:
    """Tell whether the endpoint does its work: it is registered, heard of, and runs a small function.

    The function goes through the service as a user's does, and tells who ran it. It is submitted as the client that is
    named here, or in GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET; for an endpoint of one user, else as
    the endpoint's own identity.

    The status is 0 where all of it is well; 65 the service refused the submission (the user endpoint did not start);
    69 not registered, or blocked; 70 an answer that should not be; 75 the service can't be reached, or has heard
    nothing of the endpoint; 77 another user ran the function; 78 no such endpoint, or its files are wrong; 1 no
    credentials, the function failed, or no result in time; 130 with Ctrl-C.
    """
    quiet_libraries()
    try:
        subject = _subject(settings, name_or_uuid, options)
    except EndpointError as error:
        if not settings.json:
            raise
        echo_json(_not_begun(name_or_uuid, error))
        return error.exit_status
    reports: list[Report] = []
    interrupted = False
    try:
        for report in _looked_at(settings, subject):
            reports.append(report)
    except KeyboardInterrupt:
        interrupted = True
    status = ExitStatus.INTERRUPTED if interrupted else _status(reports)
    if settings.json:
        echo_json(_document(subject, reports, status))
    elif not interrupted:
        click.echo("Healthy" if status is ExitStatus.OK else "Not healthy")
    return status


def _looked_at(settings: Settings, subject: Subject) -> Iterator[Report]:
    """The reports, shown as they come."""
    from endpoint.doctor.health import look_at

    with _progress(settings) as begins:
        for report in look_at(subject, begins):
            begins("")
            if not settings.json:
                color = settings.color and sys.stdout.isatty()
                lines = [report.stage.capitalize(), *finding_lines(report.finding, color=color)]
                click.echo("\n".join(lines))
            yield report


@contextmanager
def _progress(settings: Settings) -> Iterator[Any]:
    """Shows a word on a terminal's stderr until the next one, or nothing, takes its place."""
    shown = sys.stderr.isatty() and not settings.log_to_console and not settings.debug

    def show(word: str) -> None:
        if shown:
            sys.stderr.write(f"\r\x1b[K{plain(word)} ..." if word else "\r\x1b[K")
            sys.stderr.flush()

    try:
        yield show
    finally:
        show("")


def _status(reports: list[Report]) -> ExitStatus:
    return next((one.finding.status for one in reports if one.finding.status), ExitStatus.OK)


def _document(subject: Subject, reports: list[Report], status: ExitStatus) -> dict[str, Any]:
    directory = None if subject.directory is None else str(subject.directory)
    return {
        "healthy": status is ExitStatus.OK,
        "endpoint": {"name": subject.name, "id": subject.id, "directory": directory},
        "stages": [report.to_dict() for report in reports],
        "task": subject.task,
        "exit_status": int(status),
    }


def _not_begun(name: str, error: EndpointError) -> dict[str, Any]:
    """The document where nothing could be looked at."""
    return {
        "healthy": False,
        "endpoint": {"name": name, "id": None, "directory": None},
        "stages": [],
        "task": None,
        "exit_status": int(error.exit_status),
        "error": error.failure.to_dict(),
    }


def _subject(settings: Settings, name_or_uuid: str, options: dict[str, Any]) -> Subject:
    from endpoint.cli.check import facts
    from endpoint.config.endpoint_json import stored_endpoint_id
    from endpoint.doctor.health import Subject

    _check_usage(options)
    folder = _folder(settings, name_or_uuid)
    config = None if folder is None else _config(folder)
    requester, credentials = _requester_credentials(options)
    subject = Subject(
        name=name_or_uuid if folder is None else folder.name,
        directory=folder,
        id=name_or_uuid.lower() if folder is None else stored_endpoint_id(folder),
        requester=_requester(settings, folder, config, credentials),
        timeout_s=float(options["timeout"]),
        options=None if options["options"] is None else user_options(options["options"], "--options"),
        options_schema=_options_schema(folder, config),
        user_runtime=facts().user_runtime,
        user=options["user"],
    )
    _decide_task(subject, config, options, asked=requester)
    return subject


def _check_usage(options: dict[str, Any]) -> None:
    if (options["client_id"] is None) != (options["client_secret_file"] is None):
        raise UsageError("--client-id and --client-secret-file belong together")
    if options["client_id"] and options["own_client"]:
        raise UsageError("--client-id and --own-client exclude each other")
    if options["no_task"] and (options["user"] or options["options"]):
        raise UsageError("--no-task leaves nothing for --user and --options")


def _folder(settings: Settings, name_or_uuid: str) -> Path | None:
    """The endpoint's directory; None for an id that belongs to no endpoint here."""
    if is_uuid(name_or_uuid) and find_endpoint_dir(settings, name_or_uuid) is None:
        return None
    return existing_endpoint_dir(settings, name_or_uuid)


def _config(folder: Path) -> ManagerConfig:
    from endpoint.config.model import load_manager_config
    from endpoint.config.paths import CONFIG

    return load_manager_config(folder / CONFIG)


def _options_schema(folder: Path | None, config: ManagerConfig | None) -> dict[str, Any] | None:
    from endpoint.manager.templates import TemplateFiles

    return None if folder is None or config is None else TemplateFiles.read(folder, config).options_schema


def _requester(
    settings: Settings, folder: Path | None, config: ManagerConfig | None, credentials: ClientCredentials | None
) -> Any:
    from endpoint.doctor.requester import Requester
    from endpoint.manager.login import globus_app

    credentials = credentials or own_credentials(folder)
    if credentials is None:
        _check_login(settings, folder)
    environment = config.environment if config else None
    compute_dir = settings.compute_dir if folder is None else folder.parent
    app = globus_app(environment, compute_dir, folder, credentials=credentials)
    return Requester(app, environment=environment, local=bool(config and config.local_compute_services))


def _requester_credentials(options: dict[str, Any]) -> tuple[bool, ClientCredentials | None]:
    """Whether somebody is named who asks, and the credentials; from the options, else from the environment."""
    from endpoint.manager.login import checked_credentials, client_credentials

    if options["client_id"]:
        secret = _secret(options["client_secret_file"])
        return True, checked_credentials(options["client_id"], secret, "--client-id")
    if options["own_client"]:
        return False, None
    found = client_credentials(os.environ)
    return found is not None, found


def _secret(path: Path) -> str:
    """The secret, which stands alone in a file that only its owner can read."""
    if str(path) == "-":
        return sys.stdin.readline(LARGEST_SECRET).strip()
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise _bad_file(path, "is not a regular file")
            if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise _bad_file(path, f"is open to others (its mode is {stat.S_IMODE(facts.st_mode):04o})")
            secret = file.read(LARGEST_SECRET).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise _bad_file(path, f"can't be read: {error.strerror}") from error
    if not secret or not secret.isprintable():
        raise _bad_file(path, "is empty, or has more than one line")
    return secret


def _bad_file(path: Path, problem: str) -> LoginError:
    hint = "Write the secret alone into it, mode 0600"
    return LoginError(f"The file {path} {problem}", hint=hint, code="BAD_CREDENTIAL_FILE")


def own_credentials(folder: Path | None) -> ClientCredentials | None:
    """The endpoint's own client identity: the environment's, its directory's, or that which its unit hands over."""
    from endpoint.manager.login import checked_credentials, client_credentials
    from endpoint.privileged.policy import DIRECTORY

    found = client_credentials(os.environ, folder)
    if found or folder is None or os.geteuid() != 0:
        return found
    client_id, secret = (DIRECTORY / f"{folder.name}.{what}" for what in ("client_id", "client_secret"))
    if not client_id.exists() or not secret.exists():
        return None
    return checked_credentials(_secret(client_id), _secret(secret), str(DIRECTORY))


def _check_login(settings: Settings, folder: Path | None) -> None:
    """Raise LoginError where only somebody else could go on: root must not write another user's tokens."""
    from endpoint.manager.login import TOKEN_FILE

    path = (settings.compute_dir if folder is None else folder.parent) / TOKEN_FILE
    owner = path if path.exists() else folder
    if owner is not None and owner.stat().st_uid != os.geteuid():
        raise LoginError(
            "Nobody is named who asks, and the endpoint's own login is another user's",
            hint="Add --client-id and --client-secret-file, or run this command as the endpoint's user",
        )


def _decide_task(subject: Subject, config: ManagerConfig | None, options: dict[str, Any], *, asked: bool) -> None:
    """Say why no function is submitted, where none is."""
    from endpoint.doctor.findings import not_tried

    multi_user = config is not None and config.identity_mapping_config_path is not None
    if options["no_task"]:
        subject.may_submit = not_tried("No function is submitted, as asked for")
    elif multi_user and not asked and not options["own_client"]:
        hint = "Add --client-id and --client-secret-file of somebody who may use the endpoint, or --own-client"
        if subject.user is not None:
            raise UsageError("Nobody is named who submits the function", hint=hint)
        subject.may_submit = not_tried("The endpoint is for several users, and nobody is named who submits", hint)
