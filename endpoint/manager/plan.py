"""From an order to a process that can be started: environment, configuration, directories, program, start document.

Runs as the user whom the user endpoint belongs to: in the single-user manager, or in `endpoint.cli.prepare` after
privileges were given up. It does everything that can fail in an interesting way.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import string
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from endpoint.config.checked import checked_config
from endpoint.config.load import load_yaml
from endpoint.config.paths import LOG
from endpoint.config.rendering import render_user_config
from endpoint.errors import ConfigError, Stage
from endpoint.manager.order import Order, SpawnFailure

log = logging.getLogger(__name__)

PROGRAM = "globus-compute-endpoint"
COMMAND = "_start-user-endpoint"
USER_DIR = "GLOBUS_COMPUTE_USER_DIR"
ENDPOINT_DIR = "GLOBUS_COMPUTE_ENDPOINT_DIR"
LOG_PATH = "GLOBUS_COMPUTE_LOG_PATH"
DEFAULT_COMPUTE_DIR = ".globus_compute"
SOURCE = "the rendered user configuration"


@dataclass(frozen=True)
class Descriptors:
    """What the process inherits beside the standard three: renewed credentials to read, audit lines to write.

    audit_required: no task may begin without its line.
    """

    credentials: int
    audit: int | None = None
    audit_required: bool = False


@dataclass(frozen=True)
class Plan:
    """A process to start."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    logfile: Path
    document: bytes = field(repr=False)


def make_plan(order: Order, inherited: Mapping[str, str], descriptors: Descriptors, *, parent: int) -> Plan:
    """All that is needed to start the user endpoint. Raises UserOptionsError, ConfigError or SpawnFailure.

    inherited: the variables that the process would have by itself. parent: the PID that it will see as its parent.
    """
    environment = _environment(order, inherited)
    rendered = render_user_config(
        template=order.template_text,
        template_path=order.template_path,
        user_options_schema=order.options_schema,
        user_options=dict(order.user_options),
        user_runtime=dict(order.user_runtime),
        parent_config=order.parent_config,
        mapped_identity=order.mapped_identity,
        environ=environment,
    )
    log.debug("The configuration of %s:\n%s", order.name, rendered)
    rendered, data = _with_assurance(rendered, order.high_assurance)
    directory, logfile = _paths(data.get("paths") or {}, environment, order.name)
    environment |= {ENDPOINT_DIR: str(directory), LOG_PATH: str(logfile)}
    program = _find_program(environment["PATH"])
    working_directory = _working_directory(environment, Path(order.account["dir"]))
    return Plan(
        argv=(program, COMMAND, order.name, *order.args),
        environment=environment | {"CWD": str(working_directory)},
        directory=working_directory,
        logfile=logfile,
        document=_document(order, rendered, descriptors, parent),
    )


def _document(order: Order, rendered: str, descriptors: Descriptors, parent: int) -> bytes:
    """The start document (protocol.md, section 3)."""
    document: dict[str, Any] = {
        "amqp_creds": order.amqp_creds,
        "config": rendered,
        "checked": checked_config(rendered, SOURCE),
        "ep_info": {**order.ep_info, "posix_ppid": parent},
        "mem_fd": descriptors.credentials,
        "enckey": order.enckey,
        "block_limits": dict(order.block_limits),
    }
    if descriptors.audit is not None:
        document["audit_fd"] = descriptors.audit
        if descriptors.audit_required:
            document["audit_required"] = True
    if order.allowed_functions is not None:
        document["allowed_functions"] = list(order.allowed_functions)
    return json.dumps(document, separators=(",", ":")).encode()


def _environment(order: Order, inherited: Mapping[str, str]) -> dict[str, str]:
    """What would be there by itself, then `user_environment.yaml`, then defaults for what is not there."""
    account = order.account
    environment = {name: value for name, value in inherited.items() if name not in (ENDPOINT_DIR, LOG_PATH)}
    environment[USER_DIR] = order.compute_dir or str(Path(account["dir"]) / DEFAULT_COMPUTE_DIR)
    environment["PATH"] = _own_path(environment.get("PATH", ""))
    environment |= order.user_environment
    environment.setdefault("HOME", str(account["dir"]))
    environment.setdefault("USER", str(account["uname"]))
    environment.setdefault("GLOBUS_COMPUTE_ENDPOINT_NAME", order.name)
    python = order.user_runtime.get("python")
    for name, value in (
        ("GC_USER_PYTHON_VERSION", python.get("version") if isinstance(python, Mapping) else None),
        ("GC_USER_SDK_VERSION", order.user_runtime.get("globus_compute_sdk_version")),
    ):
        if isinstance(value, str) and value and "\0" not in value:
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


def _working_directory(environment: Mapping[str, str], home: Path) -> Path:
    wanted = environment.get("CWD")
    directory = Path(wanted) if wanted else home if home.is_dir() else Path("/")
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
    data = load_yaml(rendered, SOURCE).data
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


def open_log(logfile: Path) -> int:
    """The log, opened to append (made mode 0600); raises SpawnFailure."""
    try:
        return os.open(logfile, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, mode=0o600)
    except OSError as error:
        raise SpawnFailure("The user endpoint's log can't be written", detail=str(error)) from error


def _expanded(text: Any, environment: Mapping[str, str]) -> str:
    """`text` with `~` and `$NAME` as the user endpoint's environment has them."""
    expanded = string.Template(str(text)).safe_substitute(environment)
    if expanded == "~" or expanded.startswith("~/"):
        return environment["HOME"] + expanded[1:]
    return expanded
