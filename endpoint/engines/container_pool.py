"""A worker pool in a container: what stands inside, what stands around, and what ends it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from endpoint.engines import worker_zip
from endpoint.engines.containers import DOCKER_LIKE, Container, escape_fields, for_launcher, quoted
from endpoint.engines.launch import RUNNER, pool_arguments
from endpoint.engines.lifeline import Lifeline
from endpoint.errors import EngineFailure


def set_up_container(
    container: Container,
    provider: Any,
    template: str,
    *,
    module: str,
    run_dir: Path,
    lifeline: Lifeline | None,
    name: str,
) -> str:
    """The command of a block's worker pool, with what the image lacks of us put into the run directory.

    lifeline: for blocks on this machine. name: see `Container.command`. Raises ConfigError, EngineFailure.
    """
    if lifeline is not None:
        container.check_here(provider.worker_init)
    try:
        script = worker_zip.script_of(worker_zip.write(run_dir))
    except OSError as error:
        raise EngineFailure(f"The engine can't use its run directory {run_dir}: {error.strerror}") from error
    command = pool_in_container(
        container, template, module=module, script=script, run_dir=run_dir, lifeline=lifeline, name=name
    )
    return for_launcher(command, getattr(provider, "launcher", None))


def pool_in_container(
    container: Container,
    template: str,
    *,
    module: str,
    script: Path,
    run_dir: Path,
    lifeline: Lifeline | None,
    name: str,
) -> str:
    """The shell command, with Parsl's fields.

    script: starts a pool with whatever Python the image has; all that it needs is in its directory.
    template: Parsl's command, or the administrator's own, which runs in the container as it is.
    """
    tie = shlex.join(lifeline.arguments) if lifeline else ""
    docker_like = container.kind in DOCKER_LIKE
    # Under a daemon the pool's guard is the first process of its container: it hands signals on, and reaps. What kills
    # the program out here would not reach it, so it hangs on the lifeline itself; the shell out here then removes the
    # container, so nobody may kill that, nor what the container hangs on.
    guard = f"{RUNNER} {escape_fields(tie)} --guard " if docker_like else ""
    arguments = pool_arguments(template)
    pool = template if arguments is None else f"sh {quoted(str(script))} pool - {guard}{module} {arguments}"
    command = container.command(pool, run_dir=str(run_dir), worker_dir=str(script.parent), name=name)
    if tie and not docker_like:
        words = f"bash -c {shlex.quote(command)}" if container.kind == "custom" else command
        command = f"{quoted(sys.executable)} -I -m {RUNNER} {escape_fields(tie)} --guard --command {words}"
    return command
