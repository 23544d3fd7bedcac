"""What a task finds around it: its directory and variables; and what a result says about where it ran."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import sys
from pathlib import Path

from endpoint.worker.failures import CouldNotExecuteUserTaskError


def enter(task_id: str, run_dir: str | None, *, sandbox: bool) -> None:
    """Make and enter the task's directory, `run_dir` or with `sandbox` one of its own below it; set its variables.

    Directory and variables belong to the whole process: tasks in threads of one process share them, so an engine with
    such workers leaves `run_dir` None if its tasks must not disturb each other. CouldNotExecuteUserTaskError if the
    directory can't be made or entered.
    """
    os.environ["GC_TASK_UUID"] = task_id
    os.environ.pop("GC_TASK_SANDBOX_DIR", None)
    if run_dir is None:
        return
    try:
        directory = f"{_resolved(run_dir)}/{task_id}" if sandbox else _resolved(run_dir)
        try:
            os.chdir(directory)
        except FileNotFoundError:
            Path(directory).mkdir(parents=True, exist_ok=True)
            os.chdir(directory)
    except (OSError, RuntimeError) as error:
        raise CouldNotExecuteUserTaskError(f"The endpoint's task directory can't be used: {error}") from None
    if sandbox:
        os.environ["GC_TASK_SANDBOX_DIR"] = directory


@functools.cache
def _resolved(run_dir: str) -> str:
    """The directory's real path: an endpoint has one, and looking it up costs more than a small task."""
    if not Path(run_dir).is_absolute():
        raise CouldNotExecuteUserTaskError(f"The endpoint's task directory is not an absolute path: {run_dir}")
    return str(Path(run_dir).resolve())


def details(endpoint_id: str | None) -> dict[str, str | None]:
    """The `details` of a result. Clients compare the versions with their own, so they are those of this process."""
    return {**_versions(), "endpoint_id": endpoint_id}


def dill_version() -> str | None:
    """The version of the dill that this process uses, or would; None where there is none."""
    loaded = getattr(sys.modules.get("dill"), "__version__", None)
    return loaded if isinstance(loaded, str) else _installed("dill")


@functools.cache
def _versions() -> dict[str, str | None]:
    found = {"os": platform.platform(), "dill_version": dill_version(), "python_version": platform.python_version()}
    sdk = _installed("globus-compute-sdk")
    if sdk is not None:
        found["globus_compute_sdk_version"] = sdk
    return found


@functools.cache
def _installed(distribution: str) -> str | None:
    if importlib.util.find_spec(distribution.replace("-", "_")) is None:
        return None  # as on most hosts of an endpoint; the next lines load more than a small task needs
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
