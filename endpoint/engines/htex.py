"""GlobusComputeEngine: blocks of workers, on this machine or through a batch system, by Parsl.

Parsl's HighThroughputExecutor is used without its data-flow kernel. In which Python tasks run: see `worker_python`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from parsl.executors.errors import InvalidResourceSpecification
from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

from endpoint.engines.base import CommonOptions, Engine, EngineTask, FailureCallback, Starts
from endpoint.engines.block_limits import NO_LIMITS, BlockLimits
from endpoint.engines.blocks import BlockKeeper
from endpoint.engines.cancel_names import Stopped
from endpoint.engines.container_pool import set_up_container
from endpoint.engines.foreign import ForeignFunctions
from endpoint.engines.htex_cancel import HtexCancel, told
from endpoint.engines.htex_options import HtexOptions
from endpoint.engines.htex_status import capacity_of, status_of
from endpoint.engines.keys import check_keys
from endpoint.engines.launch import WORKER_POOL, interchange_command
from endpoint.engines.ledger import Ledger
from endpoint.engines.lifeline import Lifeline, wait_until_ended
from endpoint.engines.semaphores import remove_semaphores
from endpoint.engines.user_python import PythonLost
from endpoint.engines.worker_python import APART, set_up_pool
from endpoint.errors import BlocksFail, EndpointError, EngineFailure, NotBegun, TaskLost, TaskRefused

log = logging.getLogger(__name__)

STOP_PATIENCE = 5.0  # seconds for each part of the engine to end by itself


class GlobusComputeEngine(Engine):
    """See `HtexOptions` for the options.

    pool_module: what runs as the workers' pool.
    task_function: what a worker calls, with the message's bytes and `run_task`'s options.
    """

    pool_module = WORKER_POOL
    task_function = "endpoint.engines.pool_task.run_task"

    def __init__(self, options: CommonOptions, rest: Mapping[str, Any], limits: BlockLimits = NO_LIMITS) -> None:
        """`rest` is the `engine` block without the options that every engine has. Raises ConfigError."""
        super().__init__(options)
        self._htex = htex = HtexOptions.parse(rest, type(self).__name__, limits)
        self._executor = htex.executor
        self._executor.when_bad = self._executor_failed
        self._keeper = BlockKeeper(
            self._executor, **htex.scaling, breaker=htex.breaker, limits=limits, on_blocked=self._blocked
        )
        self._ledger = Ledger(
            self._launch,
            self._translate,
            options.max_retries_on_system_failure,
            lambda task_id, attempt: self._cancel.cancel(task_id, attempt),
        )
        self._cancel = HtexCancel(
            lambda command: self._executor.command_client.run(command), htex.cancel_grace, self._ledger.let_go
        )
        self._foreign = ForeignFunctions(
            self._executor.provider.worker_init,
            htex.worker_environment,
            local=htex.local,
            image=htex.container is not None or type(self._executor.provider).__name__ in APART,
        )
        self._submitting = threading.Lock()
        self._lifeline: Lifeline | None = None
        self._shut = False

    def start(
        self,
        *,
        endpoint_id: str,
        run_dir: Path,
        on_failure: FailureCallback,
        starts: Starts | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._prepare(endpoint_id, run_dir, on_failure, starts)
        run_dir = run_dir.absolute()
        scripts = run_dir / "submit_scripts"
        if self._executor.encrypted:
            check_keys(run_dir / self._executor.label)
        try:
            self._lifeline = Lifeline(run_dir)
            scripts.mkdir(exist_ok=True)
        except OSError as error:
            raise EngineFailure(f"The engine can't use its run directory {run_dir}: {error.strerror}") from error
        self._executor.run_dir = str(run_dir)
        self._executor.job_prefix = f"gce-{endpoint_id}.block-"
        self._executor.provider.script_dir = str(scripts)
        self._executor.interchange_launch_cmd = interchange_command(self._lifeline)
        self._executor.launch_cmd = self._pool_command(run_dir, self._lifeline)
        self._remove_semaphores()  # of a process that was killed
        log.debug("The worker pools' command: %s", self._executor.launch_cmd)
        try:
            self._executor.start()
            if not self._see_journal and self._starts.wants_places:
                self._executor.tell_places(self._placed)
        except Exception as error:  # Parsl raises it bare
            self.shutdown()
            raise EngineFailure("The engine can't start its interchange", detail=str(error)) from error
        self._keeper.start()

    def submit(self, task: EngineTask) -> Future[bytes]:
        self._foreign.refuse(task, self._keeper.managers)
        answer = self._ledger.submit(replace(task, resource_specification=self._resources(task.resource_specification)))
        self._keeper.task_submitted()
        return answer

    @property
    def capacity(self) -> int:
        return capacity_of(self._executor, local=self._htex.local)

    def status(self) -> dict[str, Any]:
        return {
            "engine_type": type(self).__name__,
            **status_of(self._executor, self._keeper.managers, self._keeper.packages),
            "outstanding_tasks": self._ledger.outstanding,
            "total_tasks": self._ledger.total,
            "breaker": self._keeper.condition(),
        }

    def job_of(self, block: str) -> str | None:
        job = self._executor.blocks_to_job_id.get(block)
        return None if job is None else str(job)

    def cancel(self, task_id: str) -> bool:
        return self._ledger.cancel(task_id)

    def stop_starting(self) -> None:
        """Workers of this machine ask the journal themselves; elsewhere what is on its way may still begin."""

    def shutdown(self) -> None:
        """First no more tasks, then the blocks, then the interchange, and last whoever still hangs on the lifeline."""
        if self._shut:
            return
        self._shut = True
        self._executor.ending = True
        self._cancel.close()
        self._ledger.close(lambda: None)
        processes: list[psutil.Process] = []
        try:
            processes = self._local_processes()
            self._keeper.stop(STOP_PATIENCE)
        except Exception:
            log.exception("The engine's blocks can't be given up; look at the batch system for what is left")
        self._executor.shutdown(STOP_PATIENCE)
        if self._lifeline is not None:
            self._lifeline.cut()
        for pid in wait_until_ended([process.pid for process in processes], STOP_PATIENCE):
            log.error("Process %s of the engine doesn't end", pid)
        self._remove_semaphores()

    def _remove_semaphores(self) -> None:
        if self._htex.local and self._executor.worker_logdir_root is None:  # else the name may not be ours alone
            remove_semaphores(self._executor.worker_logdir)

    def _resources(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The resource specification as the executor wants it. Raises TaskRefused."""
        try:
            self._executor.validate_resource_spec(given)
        except InvalidResourceSpecification as error:
            raise TaskRefused(
                f"The resource specification has {', '.join(sorted(map(str, error.invalid_keys)))}, which the "
                "endpoint's GlobusComputeEngine doesn't know",
                hint="It knows priority; for MPI functions an endpoint needs a GlobusMPIEngine",
            ) from error
        return dict(given)

    def _blocked(self, failure: BlocksFail | None) -> None:
        self.on_blocked(failure)

    def _launch(self, task: EngineTask) -> Future[bytes]:
        if (failure := self._keeper.blocked) is not None:
            raise failure
        options = self._worker_options(task)
        if self._see_journal:
            options["starts"] = self._starts.path  # the worker notes that the task begins
        elif not self._starts.started(task.task_id):  # workers may not see our files: from here on it may have begun
            raise NotBegun("The start of the task can't be noted")
        executor_task = {"f": self.task_function, "a": (options,), "k": {}}
        context: dict[str, Any] = {"task_executor": executor_task}
        if task.resource_specification:
            context["resource_spec"] = dict(task.resource_specification)
        with self._submitting:  # the executor's sockets are for one thread at a time
            attempt: Future[bytes] = self._executor.submit_payload(context, task.body)
            attempt.task_id = task.task_id  # type: ignore[attr-defined]
        return attempt

    @property
    def _see_journal(self) -> bool:
        """Whether workers see our files, and so note their starts themselves."""
        return self._htex.local and self._htex.container is None

    def _placed(self, attempt: Future[bytes], block: str, host: str) -> None:
        with self._submitting:  # when it is submitted, it has its name
            task_id: str = attempt.task_id  # type: ignore[attr-defined]
        self._starts.placed(task_id, host, block)

    def _pool_command(self, run_dir: Path, lifeline: Lifeline) -> str:
        htex = self._htex
        provider = self._executor.provider
        if htex.container is None:
            return set_up_pool(
                provider,
                self._executor.launch_cmd,
                module=self.pool_module,
                run_dir=run_dir,
                lifeline=lifeline if htex.local else None,
                environment=htex.worker_environment,
            )
        return set_up_container(
            htex.container,
            provider,
            self._executor.launch_cmd,
            module=self.pool_module,
            run_dir=run_dir,
            lifeline=lifeline if htex.local else None,
            name=f"gce-{self._endpoint_id}",
        )

    def _local_processes(self) -> list[psutil.Process]:
        """The blocks' processes on this machine, to wait for; the interchange is the executor's to end."""
        if not self._htex.local:
            return []
        groups = {int(job) for job in list(self._executor.blocks_to_job_id.values()) if str(job).isdigit()}
        found: list[psutil.Process] = []
        for pid in groups:
            try:
                block = psutil.Process(pid)
                found += [block, *block.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return [process for process in found if process.pid != os.getpid()]

    def _executor_failed(self, failure: EngineFailure) -> None:
        """Everybody gets an answer first, then the endpoint hears of it."""

        def again() -> EndpointError:
            return type(failure)(failure.failure.reason, detail=failure.failure.detail)

        if self._ledger.close(again):
            log.error("%s", failure.failure.for_admin())
            self._on_failure(failure)

    def _translate(self, failure: BaseException) -> EndpointError:
        if isinstance(failure, Stopped):
            return told(failure)
        if isinstance(failure, ManagerLost | WorkerLost | PythonLost):
            return TaskLost(f"A worker was lost: {failure}")
        if isinstance(failure, ModuleNotFoundError) and (failure.name or "").split(".")[0] == "endpoint":
            return EngineFailure(
                "The workers' Python environment lacks the package compute-endpoint",
                hint="Install compute-endpoint into the environment that worker_init activates",
            )
        return EngineFailure("A worker failed to run the task", detail=f"{type(failure).__name__}: {failure}")
