"""What every engine is: bytes of a task in, a future of the bytes of its result out.

An engine neither opens a task nor knows of the broker. It says how much can run at once, what it is doing now, and it
ends all that it started.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from endpoint.errors import EndpointError

RESULT_SIZE_LIMIT = 10 * 1024 * 1024

FailureCallback = Callable[[EndpointError], None]


class Starts(Protocol):
    """Where it is written down that a task begins, before it does; `endpoint.user.journal` is one.

    path: a file that worker processes of this machine add their lines to; None where there is none.
    wants_places: whether somebody wants to know which block has a task.
    """

    wants_places: bool

    @property
    def path(self) -> str | None: ...

    def started(self, task_id: str) -> bool:
        """Note that a task begins; False where it must not."""

    def placed(self, task_id: str, host: str, block: str) -> None:
        """A block elsewhere has got a task to run it; from any thread."""

    def new_page(self) -> str | None:
        """A file in which one worker process of this machine notes its starts itself.

        Empty where nobody wants to know; None where `started` is to be told of each task. Raises OSError.
        """

    def begun_as(self, task_id: str, page: str, number: int) -> None:
        """A task that is answered now was the `number`th (from 0) of the process with that page."""

    def drop_page(self, path: str) -> None:
        """The process is gone, and so is what it had begun, or that was told to `started`."""


class NoStarts:
    """For engines by themselves: nothing is written down."""

    path = None
    wants_places = False

    def started(self, task_id: str) -> bool:
        del task_id
        return True

    def placed(self, task_id: str, host: str, block: str) -> None:
        del task_id, host, block

    def new_page(self) -> str:
        return ""

    def begun_as(self, task_id: str, page: str, number: int) -> None:
        del task_id, page, number

    def drop_page(self, path: str) -> None:
        del path


@dataclass(frozen=True)
class EngineTask:
    """One task for an engine: `body` is the message as it came from the broker, the rest comes from its headers."""

    task_id: str
    function_id: str
    body: bytes
    resource_specification: dict[str, Any] = field(default_factory=dict)
    result_serializers: tuple[str, ...] = ()


@dataclass(frozen=True)
class CommonOptions:
    """The options that every engine has, by their names in `config.yaml`; defaults are in the schema.

    allowed_serializers: import paths of the strategies that a task may use; None allows all.
    max_retries_on_system_failure: how often a task is run again whose worker or block was lost.
    working_dir: where functions run; relative to the endpoint's run directory.
    run_in_sandbox: whether each task runs in a directory of its own under `working_dir`.
    """

    allowed_serializers: tuple[str, ...] | None
    max_retries_on_system_failure: int
    working_dir: str
    run_in_sandbox: bool


class Engine(ABC):
    """Runs tasks. `start` and `shutdown` may block, everything else is quick and may be called from any thread.

    quick_start: whether `start` is quick, too, so that it needs no thread of its own.
    on_blocked: set it before `start`; told, from any thread, why the engine can run nothing for a time, and with None
    when that is over.
    """

    quick_start = False
    on_blocked: Callable[[EndpointError | None], None] = staticmethod(lambda _error: None)

    def __init__(self, options: CommonOptions) -> None:
        self.options = options
        self._endpoint_id = ""
        self._working_dir = Path(options.working_dir)
        self._on_failure: FailureCallback = _ignore
        self._starts: Starts = NoStarts()

    @abstractmethod
    def start(
        self,
        *,
        endpoint_id: str,
        run_dir: Path,
        on_failure: FailureCallback,
        starts: Starts | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Make the engine ready. `on_failure` is called, once, from any thread, when it can't go on later.

        starts: told of each task just before it begins; one that it doesn't let begin fails with NotBegun.
        loop: runs, in another thread than this call; an engine may wait there for its own processes.

        Raises EngineFailure, ConfigError.
        """

    @abstractmethod
    def submit(self, task: EngineTask) -> Future[bytes]:
        """Give a task to the engine. The future gets the result message's bytes, or an EndpointError.

        That is NotBegun for a task that is given back as it was, and EngineGone when the engine broke.

        Raises TaskRefused where the engine can't do what the resource specification asks for.
        """

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many tasks can run (or wait beside a worker) at the same time at the most; at least 1."""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """The engine's part of a heartbeat's `global_state`, from what is known here and now."""

    def job_of(self, block: str) -> str | None:
        """The batch system's name of a block, where there are blocks; from any thread."""
        del block
        return None

    @abstractmethod
    def cancel(self, task_id: str) -> bool:
        """Nobody wants a task's result any more; False for a task that this engine doesn't have (any more).

        Its future gets TaskCancelled, which says what was done: at once for one that no worker has begun, and for one
        that runs as soon as it has ended. It gets the result where that comes first. Returns without waiting.
        """

    @abstractmethod
    def stop_starting(self) -> None:
        """Begin nothing more. What waits is given back (NotBegun), what runs goes on.

        Where an engine can't take back what waits, it may still begin, until `shutdown`.
        """

    @abstractmethod
    def shutdown(self) -> None:
        """End everything that the engine started; a second call does nothing.

        The future of a task that didn't finish is cancelled.
        """

    def _prepare(
        self, endpoint_id: str, run_dir: Path, on_failure: FailureCallback, starts: Starts | None = None
    ) -> None:
        """What every `start` does first."""
        self._starts = starts or NoStarts()
        self._endpoint_id = endpoint_id
        self._on_failure = on_failure
        self._working_dir = Path(os.path.normpath(run_dir.absolute() / self.options.working_dir))

    def _common_worker_options(self) -> dict[str, Any]:
        """The second argument of `endpoint.worker.run.run_task`, as far as it is the same for all tasks.

        Plain values only, any Python must unpickle them.
        """
        allowed = self.options.allowed_serializers
        return {
            "endpoint_id": self._endpoint_id,
            "run_dir": str(self._working_dir),
            "sandbox": self.options.run_in_sandbox,
            "result_size_limit": RESULT_SIZE_LIMIT,
            "allowed_serializers": None if allowed is None else list(allowed),
        }

    def _worker_options(self, task: EngineTask) -> dict[str, Any]:
        """All of it, for one task."""
        return {
            **self._common_worker_options(),
            "task_id": task.task_id,
            "result_serializers": list(task.result_serializers),
        }


def _ignore(error: EndpointError) -> None:
    del error
