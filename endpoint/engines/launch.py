"""The commands that start Parsl's processes."""

from __future__ import annotations

import shlex
import sys

from endpoint.engines.lifeline import Lifeline
from endpoint.errors import ConfigError

INTERCHANGE = "endpoint.engines.interchange"
PARSL_SCRIPT = "process_worker_pool.py"
WORKER_POOL = "endpoint.engines.worker_pool"
OURS = "globus-compute-endpoint"
RUNNER = "endpoint.engines.python_exec"

DOCKER_LIKE = ("docker", "podman", "podman-hpc")


def interchange_command(lifeline: Lifeline) -> list[str]:
    """The interchange: this very Python, tied to the endpoint."""
    return [sys.executable, "-m", RUNNER, *lifeline.arguments, INTERCHANGE]


def pool_command(template: str, *, module: str, lifeline: Lifeline | None, own_environment: bool) -> str:
    """The shell command of a worker pool.

    module: what runs in the place of Parsl's script.
    template: Parsl's, whose first word is its script; an administrator's own command is left as it is.
    lifeline: where the pool runs on this machine.
    own_environment: whether it runs in this Python's environment; else whatever `worker_init` has put on PATH goes
    first, and this installation's Python is for when nothing is there (the same path on a shared file system).
    """
    arguments = _pool_arguments(template)
    if arguments is None:
        return template
    python = shlex.quote(sys.executable)
    tie = f"{shlex.join(lifeline.arguments)} --guard" if lifeline else ""
    if own_environment:
        return f"{python} -m {RUNNER} {tie} {module} {arguments}"
    run = f"$(command -v {OURS} >/dev/null && echo {OURS} python-exec || echo {python} -m {RUNNER})"
    if tie:  # isolated, as worker_init may have set variables for another Python
        run = f"{python} -I -m {RUNNER} {tie} --command {run}"
    return f"{run} {module} {arguments}"


def container_command(command: str, *, kind: str, uri: str | None, options: str | None, run_dir: str) -> str:
    """`command` inside a container; Docker-like ones see the run directory at the same path."""
    if kind == "custom":
        if not options:
            raise ConfigError("The engine's container_type is custom, which needs container_cmd_options.")
        return options.replace("{EXECUTOR_RUNDIR}", run_dir).replace("{EXECUTOR_LAUNCH_CMD}", command)
    if not uri:
        raise ConfigError(f"The engine's container_type is {kind}, which needs container_uri.")
    if kind in DOCKER_LIKE:
        words = [kind, "run", options or "", f"-v {run_dir}:{run_dir} -t", uri, command]
    else:
        words = [kind, "run", options or "", uri, command]
    return " ".join(word for word in words if word)


def pool_command_in_container(template: str, *, module: str) -> str:
    """The worker pool's command as a container's image knows it."""
    arguments = _pool_arguments(template)
    return template if arguments is None else f"{OURS} python-exec {module} {arguments}"


def _pool_arguments(template: str) -> str | None:
    """What stands behind the name of Parsl's script; None where the administrator wrote a command of their own."""
    script, _, arguments = template.strip().partition(" ")
    return " ".join(arguments.split()) if script == PARSL_SCRIPT else None
