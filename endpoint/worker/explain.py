"""Why a function or a value can't be read or written here, in words for the user."""

from __future__ import annotations

import os
import platform
import sys

from endpoint.worker.bytecode import ForeignBytecode, in_words
from endpoint.worker.environment import dill_version

# A templated endpoint knows these of the user for whom it was started, and its workers may.
SUBMITTERS_PYTHON, SUBMITTERS_SDK = "GC_USER_PYTHON_VERSION", "GC_USER_SDK_VERSION"
_LONGEST = 1000


def why_not_loaded(strategy: str, what: str, error: BaseException) -> str:
    """`what` ("the function") came in `strategy`, and reading it has raised `error`."""
    opening = f"{what.capitalize()} can't be deserialized with {strategy} in the worker"
    if isinstance(error, ForeignBytecode):
        return f"{opening}: {foreign_bytecode(error.versions, platform.python_version())}"
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return missing_module(opening, error)
    because = f"{opening}: {said(error)}."
    if "Dill" not in strategy and "Pickle" not in strategy:
        return because
    return (
        f"{because} The worker has Python {platform.python_version()} and dill {dill_version() or '(none)'}"
        f"{_submitter()}; pickled functions and values are seldom readable by another minor version of Python than "
        f"wrote them. Submit from Python {minor_of(platform.python_version())}, or choose a strategy that sends "
        f"source, such as PureSourceTextInspect or AllCodeStrategies"
    )


def missing_module(opening: str, error: ModuleNotFoundError) -> str:
    """A module that is missing here, and what to do about it."""
    missing = (error.name or "?").partition(".")[0]
    package = missing.replace("_", "-") if missing == "globus_compute_sdk" else missing
    because = ", which shell and MPI functions need" if missing == "globus_compute_sdk" else ""
    instead = ", or send source and JSON, which need no dill" if missing == "dill" else ""
    return (
        f"{opening}: its Python {platform.python_version()} ({sys.executable}) has no module {missing}{because}. "
        f"Install {package} in the worker environment{instead}"
    )


def said(error: BaseException) -> str:
    """The exception's class and text; whatever the exception does."""
    try:
        text = str(error)
    except BaseException:
        text = "(its text can't be had)"
    return f"{type(error).__name__}: {text[:_LONGEST]}" if text else type(error).__name__


def foreign_bytecode(versions: tuple[str, ...], worker: str) -> str:
    """One sentence, without its beginning, with the versions of the writers and of the worker."""
    exact = os.environ.get(SUBMITTERS_PYTHON, "")
    writer = f"Python {exact[:20]}" if minor_of(exact) in versions else in_words(versions)
    return (
        f"it holds bytecode of {writer}, and the worker has Python {worker}, which can't run that: submit from Python "
        f"{minor_of(worker)}, or have the workers run in a Python like yours (worker_init), or choose a strategy that "
        f"sends source, such as PureSourceTextInspect or AllCodeStrategies"
    )


def minor_of(version: str) -> str:
    """The first two numbers."""
    return ".".join(version.split(".")[:2])


def _submitter() -> str:
    python, sdk = os.environ.get(SUBMITTERS_PYTHON), os.environ.get(SUBMITTERS_SDK)
    found = [f"Python {python[:20]}" if python else "", f"globus-compute-sdk {sdk[:20]}" if sdk else ""]
    return f", the submitter {' and '.join(filter(None, found))}" if any(found) else ""
