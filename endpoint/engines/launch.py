"""The commands that start Parsl's processes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from endpoint.engines.lifeline import Lifeline

INTERCHANGE = "endpoint.engines.interchange"
PARSL_SCRIPT = "process_worker_pool.py"
WORKER_POOL = "endpoint.engines.worker_pool"
OURS = "globus-compute-endpoint"
RUNNER = "endpoint.engines.python_exec"
PYTHON = sys.executable  # as nodes may have it, too, on a shared file system


def interchange_command(lifeline: Lifeline) -> list[str]:
    """The interchange: this very Python, tied to the endpoint."""
    return [sys.executable, "-m", RUNNER, *lifeline.arguments, INTERCHANGE]


def pool_command(
    template: str, *, module: str, lifeline: Lifeline | None, own_environment: bool, script: Path | None = None
) -> str:
    """The shell command of a worker pool.

    module: what runs in the place of Parsl's script.
    template: Parsl's, whose first word is its script; an administrator's own command is left as it is.
    lifeline: where the pool runs on this machine.
    own_environment: whether it runs in this Python's environment; else `script` (see `worker_zip`) chooses the Pythons,
    or where the workers don't see our files, the program on their PATH is what they have.
    """
    arguments = pool_arguments(template)
    if arguments is None:
        return template
    python = shlex.quote(PYTHON)
    tie = f"{shlex.join(lifeline.arguments)} --guard " if lifeline else ""
    if own_environment:
        return f"{_literal(python)} -m {RUNNER} {_literal(tie)}{module} {arguments}"
    if script is not None:
        words = f"sh {shlex.quote(str(script))} pool {python} {tie}"
        return f"{_literal(words)}{module} {arguments}"
    return (
        f"$(command -v {OURS} >/dev/null && echo {OURS} python-exec || echo {python} -m {RUNNER}) {module} {arguments}"
    )


def before_worker_init(script: Path, specification: Path | None) -> str:
    """Shell lines to put in front of a `worker_init`: they note what is on PATH before it.

    specification: of an environment that is to be made, if need be, and put on PATH (see `user_environment`).
    """
    run = f"sh {shlex.quote(str(script))}"
    lines = [f'export GC_BEFORE="$({run} look)" GC_LIBRARIES_BEFORE="${{LD_LIBRARY_PATH-}}"']
    if specification is not None:
        make = f"{run} environment {shlex.quote(PYTHON)} {shlex.quote(str(specification))}"
        lines += [
            f'GC_ENVIRONMENT="$({make})" || exit 69',
            'export GC_ENVIRONMENT VIRTUAL_ENV="$GC_ENVIRONMENT" PATH="$GC_ENVIRONMENT/bin:$PATH"',
        ]
    return "".join(f"{line}\n" for line in lines)


def _literal(text: str) -> str:
    """`text` as it has to stand in a command that Parsl formats twice."""
    return text.replace("{", "{{{{").replace("}", "}}}}")


def pool_arguments(template: str) -> str | None:
    """What stands behind the name of Parsl's script; None where the administrator wrote a command of their own."""
    script, _, arguments = template.strip().partition(" ")
    return " ".join(arguments.split()) if script == PARSL_SCRIPT else None
