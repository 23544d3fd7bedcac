"""From a start request to a user endpoint's process.

`prepare` does everything that can fail in an interesting way: it renders the configuration, makes the directory and
finds the program. It takes CPU and touches files, so it runs in a thread. `launch` is the straight line behind it:
open the log, start a fresh process, hand it the start document.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import string
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from endpoint.config.checked import checked_config
from endpoint.config.load import load_yaml
from endpoint.config.model import ManagerConfig
from endpoint.config.paths import LOG, compute_dir
from endpoint.config.rendering import render_user_config
from endpoint.errors import ConfigError, EndpointError, Mender, Stage
from endpoint.manager.commands import StartRequest
from endpoint.manager.credentials import CredentialFile
from endpoint.manager.local_user import LocalUser
from endpoint.manager.templates import TemplateFiles, read_user_environment

log = logging.getLogger(__name__)

PROGRAM = "globus-compute-endpoint"
COMMAND = "_start-user-endpoint"
USER_DIR = "GLOBUS_COMPUTE_USER_DIR"
ENDPOINT_DIR = "GLOBUS_COMPUTE_ENDPOINT_DIR"
LOG_PATH = "GLOBUS_COMPUTE_LOG_PATH"
TAIL_BYTES = 4096


class SpawnFailure(EndpointError):
    """The process of a user endpoint can't be started."""

    mender = Mender.ADMIN
    stage = Stage.EXEC
    code = "CANNOT_START"


@dataclass(frozen=True)
class Host:
    """What is the same for every user endpoint of this manager."""

    endpoint_dir: Path
    config: ManagerConfig
    environment: Mapping[str, str] = field(repr=False)

    @property
    def compute_dir(self) -> Path:
        """Where the user endpoints' directories go: beside the manager's own, unless that lies somewhere special."""
        return compute_dir(None) if self.environment.get(ENDPOINT_DIR) else self.endpoint_dir.parent


@dataclass(frozen=True)
class Plan:
    """A process to start."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    logfile: Path
    document: bytes = field(repr=False)


@dataclass(frozen=True)
class Running:
    """A process that was started, and where in its log it began."""

    process: asyncio.subprocess.Process
    logfile: Path
    log_start: int

    def log_tail(self) -> str:
        """The last that this process wrote to its log; empty if the log can't be read."""
        try:
            with self.logfile.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                begin = self.log_start if self.log_start <= size else 0
                stream.seek(max(begin, size - TAIL_BYTES))
                return stream.read(TAIL_BYTES).decode(errors="replace").strip()
        except OSError:
            return ""


def prepare(host: Host, request: StartRequest, user: LocalUser, credentials: CredentialFile) -> Plan:
    """All that is needed to start the user endpoint. Raises UserOptionsError, ConfigError or SpawnFailure."""
    files = TemplateFiles.read(host.endpoint_dir, host.config)
    environment = _environment(host, request, user)
    rendered = render_user_config(
        template=files.text,
        template_path=files.path,
        user_options_schema=files.options_schema,
        user_options=dict(request.user_opts),
        user_runtime=dict(request.user_runtime),
        parent_config=asdict(host.config),
        mapped_identity=user.for_template(),
        environ=environment,
    )
    log.debug("The configuration of %s:\n%s", request.name, rendered)
    rendered, data = _with_assurance(rendered, host.config.high_assurance)
    directory, logfile = _paths(data.get("paths") or {}, environment, request.name)
    environment |= {ENDPOINT_DIR: str(directory), LOG_PATH: str(logfile)}
    program = _find_program(environment["PATH"])
    working_directory = _working_directory(environment, user)
    return Plan(
        argv=(program, COMMAND, request.name, *request.args),
        environment=environment | {"CWD": str(working_directory)},
        directory=working_directory,
        logfile=logfile,
        document=_document(host.config, request, user, rendered, credentials),
    )


async def launch(plan: Plan, credentials: CredentialFile) -> Running:
    """Start the process of `plan`, with the memory file as its inherited descriptor; raises SpawnFailure."""
    try:
        descriptor = os.open(plan.logfile, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, mode=0o600)
    except OSError as error:
        raise SpawnFailure("The user endpoint's log can't be written", detail=str(error)) from error
    try:
        log_start = os.fstat(descriptor).st_size
        process = await asyncio.create_subprocess_exec(
            *plan.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=descriptor,
            stderr=descriptor,
            env=dict(plan.environment),
            cwd=plan.directory,
            pass_fds=(credentials.reader(),),
            start_new_session=True,
            umask=0o077,
        )
    except (OSError, ValueError) as error:
        raise SpawnFailure(f"The program {PROGRAM} can't be started", detail=repr(error)) from error
    finally:
        os.close(descriptor)
        credentials.close_reader()
    await _hand_over(process, plan.document)
    return Running(process, plan.logfile, log_start)


async def _hand_over(process: asyncio.subprocess.Process, document: bytes) -> None:
    stdin = process.stdin
    if stdin is None:
        raise AssertionError("the process was started with a pipe")
    # A process that ends before it has read everything is seen by who waits for it.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(document)
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()


def _document(
    config: ManagerConfig, request: StartRequest, user: LocalUser, rendered: str, credentials: CredentialFile
) -> bytes:
    ep_info: dict[str, Any] = {"posix_ppid": os.getpid()}
    if user.matched_identity:
        ep_info["globus_matched_identity"] = user.matched_identity
        ep_info["globus_candidate_identities"] = [dict(found) for found in request.requester.identity_set]
    document: dict[str, Any] = {
        "amqp_creds": request.amqp_creds,
        "config": rendered,
        "checked": checked_config(rendered, "the rendered user configuration"),
        "ep_info": ep_info,
        "mem_fd": credentials.reader(),
        "enckey": credentials.key,
    }
    if config.allowed_functions is not None:
        document["allowed_functions"] = [str(function) for function in config.allowed_functions]
    return json.dumps(document, separators=(",", ":")).encode()


def _environment(host: Host, request: StartRequest, user: LocalUser) -> dict[str, str]:
    """The manager's own variables, then `user_environment.yaml`, then defaults for what is not there."""
    environment = {name: value for name, value in host.environment.items() if name not in (ENDPOINT_DIR, LOG_PATH)}
    environment[USER_DIR] = str(host.compute_dir)
    environment["PATH"] = _own_path(environment.get("PATH", ""))
    environment |= read_user_environment(host.endpoint_dir)
    environment.setdefault("HOME", str(user.home))
    environment.setdefault("USER", user.name)
    environment.setdefault("GLOBUS_COMPUTE_ENDPOINT_NAME", request.name)
    python = request.user_runtime.get("python")
    for name, value in (
        ("GC_USER_PYTHON_VERSION", python.get("version") if isinstance(python, Mapping) else None),
        ("GC_USER_SDK_VERSION", request.user_runtime.get("globus_compute_sdk_version")),
    ):
        if isinstance(value, str) and value:
            environment.setdefault(name, value)
    return environment


def _own_path(path: str) -> str:
    """`path`, and behind it the directory of this program, which need not be on it."""
    entries = [entry for entry in path.split(os.pathsep) if entry] or ["/usr/local/bin", "/usr/bin", "/bin"]
    own = str(Path(sys.executable).parent)
    return os.pathsep.join(entries if own in entries else [*entries, own])


def _find_program(path: str) -> str:
    found = shutil.which(PROGRAM, path=path)
    if found is None:
        raise SpawnFailure(
            f"The program {PROGRAM} is not on the endpoint's PATH",
            hint="Set PATH in user_environment.yaml to where it is installed",
            detail=f"PATH is {path}",
            code="NO_PROGRAM",
        )
    return str(Path(found).absolute())


def _working_directory(environment: Mapping[str, str], user: LocalUser) -> Path:
    wanted = environment.get("CWD")
    directory = Path(wanted) if wanted else user.home if user.home.is_dir() else Path("/")
    if not directory.is_dir():
        raise ConfigError(
            "The working directory of the endpoint's environment is not there",
            hint="Change CWD in user_environment.yaml",
            detail=f"CWD is {directory}",
            stage=Stage.EXEC,
        )
    return directory


def _with_assurance(rendered: str, high_assurance: bool) -> tuple[str, Mapping[str, Any]]:
    """The configuration with the manager's own word on high assurance, which no template may have."""
    data = load_yaml(rendered, "the rendered user configuration").data
    if not isinstance(data, Mapping):
        raise ConfigError("The endpoint's template does not render to options and their values", stage=Stage.RENDER)
    if "high_assurance" in data:
        raise ConfigError(
            "The endpoint's template sets high_assurance", hint="Set it in config.yaml only", stage=Stage.RENDER
        )
    return (f"high_assurance: true\n{rendered}" if high_assurance else rendered), data


def _paths(configured: Mapping[str, Any], environment: Mapping[str, str], name: str) -> tuple[Path, Path]:
    """The user endpoint's directory (made, mode 0700) and its log file.

    They come from `paths` in the rendered configuration, else from the environment file, else from the name.
    """
    directory = Path(
        _expanded(configured.get("endpoint_dir") or environment.get(ENDPOINT_DIR) or "", environment)
        or Path(environment[USER_DIR]) / name
    ).absolute()
    logfile = Path(
        _expanded(configured.get("endpoint_log") or environment.get(LOG_PATH) or "", environment) or directory / LOG
    ).absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        logfile.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpawnFailure(
            "The user endpoint's directory can't be made",
            hint="The disk may be full, or the directory not writable",
            detail=str(error),
        ) from error
    return directory, logfile


def _expanded(text: Any, environment: Mapping[str, str]) -> str:
    """`text` with `~` and `$NAME` as the user endpoint's environment has them."""
    expanded = string.Template(str(text)).safe_substitute(environment)
    if expanded == "~" or expanded.startswith("~/"):
        return environment["HOME"] + expanded[1:]
    return expanded
