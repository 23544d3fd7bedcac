"""A pickled function that no worker of an engine could run is refused before it waits for a worker.

Where the endpoint knows nothing of the submitter's Python, or of its workers', the worker looks, as it always does
(see `worker/bytecode`). To look here costs time, so it is done only where the two are known to differ.
"""

from __future__ import annotations

import binascii
import io
import os
import pickletools
import platform
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from endpoint.engines.base import EngineTask
from endpoint.engines.worker_python import is_needed
from endpoint.errors import TaskRefused
from endpoint.worker.bytecode import KNOWN, writers
from endpoint.worker.explain import SUBMITTERS_PYTHON, foreign_bytecode, minor_of
from endpoint.worker.failures import WorkerFailure
from endpoint.worker.frame import read_task
from endpoint.worker.packing import unpack

DILL_CODE = "01\n"  # what a pickled function starts with; see `worker/strategies`
MOST_STEPS = 100  # of a pickle, to its first code object
NUMBERS = 6  # that stand before the bytecode among the fields of a code object


class ForeignFunctions:
    """For one engine, and its tasks of one submitter."""

    def __init__(self, worker_init: str, environment: Mapping[str, Any] | None, *, local: bool, image: bool) -> None:
        """local: whether blocks are on this machine. image: whether workers are in an image, with its own Python."""
        self._submitter = os.environ.get(SUBMITTERS_PYTHON)
        self._unknown = image or bool(worker_init.strip())
        self._known: str | None = None
        if environment and is_needed(environment):
            self._unknown = self._unknown or bool(environment.get("path"))
            self._known = environment.get("python") or platform.python_version()
        elif local:
            self._known = platform.python_version()

    def refuse(self, task: EngineTask, pools: Iterable[Mapping[str, Any]]) -> None:
        """Raises TaskRefused where no worker can run the task's function.

        pools: what the interchange knows of the pools of workers.
        """
        if self._submitter is None or self._unknown:
            return
        worker = self._known or _only_version(pools)
        if worker is None or minor_of(worker) == minor_of(self._submitter) or minor_of(worker) not in KNOWN:
            return
        versions = function_writers(task)
        if versions and minor_of(worker) not in versions:
            raise TaskRefused(f"The function can't be deserialized: {foreign_bytecode(versions, worker)}")


def _only_version(pools: Iterable[Mapping[str, Any]]) -> str | None:
    versions = {str(pool.get("python_version")) for pool in pools}
    return versions.pop() if len(versions) == 1 else None


def function_writers(task: EngineTask) -> tuple[str, ...]:
    """The versions of Python that may have pickled the task's function; empty where it is not pickled, or unknown."""
    try:
        function = unpack(read_task(task.body, task.task_id), at_most=3)[0]
        if not function.startswith(DILL_CODE):
            return ()
        bytecode = _first_bytecode(binascii.a2b_base64(function[len(DILL_CODE) :]))
    except (WorkerFailure, ValueError, IndexError):
        return ()  # for the worker to say
    return writers(bytecode) if bytecode else ()


def _first_bytecode(pickled: bytes) -> bytes | None:
    """The bytecode of the first code object in a pickle of dill's, which is read, not run."""
    numbers = -1  # no code object has begun
    for operation, value, _ in islice(pickletools.genops(io.BytesIO(pickled)), MOST_STEPS):
        if value == "_create_code" or (isinstance(value, str) and value.endswith(" _create_code")):
            numbers = 0
        elif numbers >= 0 and isinstance(value, bytes) and numbers == NUMBERS:
            return value
        elif numbers >= 0 and isinstance(value, int) and operation.name.startswith("BININT"):
            numbers += 1
    return None
