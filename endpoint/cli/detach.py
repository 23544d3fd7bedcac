"""`start --detach`: a process of its own, whose first news comes back through a pipe.

The child is a fresh `start` in a new session. On the pipe it writes one line of JSON: `{"endpoint_id": ...}` as soon as
it is connected, or `{"failure": ..., "exit_status": ...}`; the end of the pipe without a line means that it died.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click

from endpoint.cli.common import PROGRAM_NAMES, Settings
from endpoint.errors import EndpointError, ExitStatus, Failure, Mender, Stage

MONITOR_LOGS = Path("/var/log/globus-compute-endpoint")  # what a detached monitor says; its manager has its own log


class DetachFailure(EndpointError):
    """The detached process ended before it said anything."""

    mender = Mender.ADMIN
    stage = Stage.EXEC
    code = "DETACH"


class Reporter:
    """The child's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._endpoint_id = ""

    def registering(self) -> None:
        """Nobody watches."""

    def registered(self, endpoint_id: str) -> None:
        self._endpoint_id = endpoint_id

    def ready(self) -> None:
        self._tell({"endpoint_id": self._endpoint_id})

    def failed(self, error: EndpointError) -> bool:
        """Whether the parent was there to be told."""
        return self._tell({"failure": error.failure.to_dict(), "exit_status": int(error.exit_status)})

    def _tell(self, news: dict[str, object]) -> bool:
        if self._descriptor < 0:
            return False
        try:
            os.write(self._descriptor, json.dumps(news).encode() + b"\n")
        except BrokenPipeError:  # the person left; the endpoint stays
            return False
        finally:
            os.close(self._descriptor)
            self._descriptor = -1
        return True


def start_detached(
    settings: Settings,
    endpoint_dir: Path,
    endpoint_uuid: str | None,
    *,
    policy: str | None = None,
    with_monitor: bool = False,
) -> int:
    """Start the endpoint in the background; returns once it is connected, or has failed."""
    from endpoint.cli.start import id_line
    from endpoint.config.paths import LOG

    # Root writes nothing into a directory of somebody else's, who could have put a link there.
    logfile = MONITOR_LOGS / f"{endpoint_dir.name}.log" if with_monitor else endpoint_dir / LOG
    click.echo(f"Starting the endpoint {endpoint_dir.name} in the background ...", err=True)
    reader, writer = os.pipe()
    try:
        command = _command(settings, endpoint_dir, endpoint_uuid, writer)
        command += ["--policy", policy] if policy else []
        process = _spawn(command, logfile, writer, flags=os.O_NOFOLLOW if with_monitor else 0)
    finally:
        os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            line = pipe.readline()
    except KeyboardInterrupt:
        process.terminate()
        raise
    if not line:
        status = process.wait()
        raise DetachFailure(
            f"The endpoint's process ended at once, with status {status}", hint=f"Look at the end of {logfile}"
        )
    news = json.loads(line)
    if "failure" in news:
        return _show_failure(settings, news)
    click.echo(id_line(news["endpoint_id"]))
    click.echo(f"Connected, as process {process.pid}. Its log is {logfile}", err=True)
    return ExitStatus.OK


def _command(settings: Settings, endpoint_dir: Path, endpoint_uuid: str | None, writer: int) -> list[str]:
    command = [sys.executable, *_this_program(), "--config-dir", str(settings.compute_dir)]
    command += ["start", endpoint_dir.name, "--ready-fd", str(writer)]
    if settings.debug:
        command.append("--debug")
    if endpoint_uuid:
        command += ["--endpoint-uuid", endpoint_uuid]
    return command


def _this_program() -> list[str]:
    """By the script where there is one: with `-m`, modules in the working directory would come before ours."""
    script = Path(sys.argv[0]).absolute()
    return [str(script)] if script.name in PROGRAM_NAMES and script.is_file() else ["-m", "endpoint.cli.main"]


def _spawn(command: list[str], logfile: Path, writer: int, *, flags: int = 0) -> subprocess.Popen[bytes]:
    try:
        logfile.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        log = os.open(logfile, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    except OSError as error:
        raise DetachFailure(f"The log {logfile} can't be written: {error.strerror}") from error
    try:
        # What doesn't go through our logs, such as a crash of the interpreter, should be found in the log as well.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writer,),
            cwd=logfile.parent,
            start_new_session=True,
        )
    finally:
        os.close(log)


def _show_failure(settings: Settings, news: dict[str, object]) -> int:
    fields = dict(news["failure"])  # type: ignore[call-overload]  # written by `Reporter.failed`
    failure = Failure(**{**fields, "stage": Stage(fields["stage"]), "mender": Mender(fields["mender"])})
    click.echo(failure.for_admin(), err=True)
    return int(str(news["exit_status"]))
