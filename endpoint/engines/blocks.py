"""Keeps an executor's blocks: the first at once, more and fewer by Parsl's strategy, and the figures of both."""

from __future__ import annotations

import logging
import threading
from typing import Any

from parsl.executors.high_throughput.errors import CommandClientBadError, CommandClientTimeoutError
from parsl.jobs.states import TERMINAL_STATES
from parsl.jobs.strategy import Strategy

from endpoint.engines.parsl_executor import TiedExecutor
from endpoint.errors import EngineGone

log = logging.getLogger(__name__)

SETTLING_PERIOD = 1.0  # seconds between looks while blocks are there whose workers haven't come yet


class BlockKeeper:
    """A thread that looks at the blocks every `strategy_period` seconds, and when a task comes while there are none."""

    def __init__(self, executor: TiedExecutor, *, strategy: str, max_idletime: float, strategy_period: float) -> None:
        self._executor = executor
        self._strategy = Strategy(strategy=strategy, max_idletime=max_idletime)
        self._period = strategy_period
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="block-keeper", daemon=True)
        self.active = 0
        self.managers: list[dict[str, Any]] = []
        self.packages: dict[str, dict[str, str]] = {}

    def start(self) -> None:
        """Begin; the initial blocks are asked for right away."""
        self._strategy.add_executors([self._executor])
        self._thread.start()

    def task_submitted(self) -> None:
        """A task came: where no block is there, don't let it wait for the next look."""
        if self.active == 0:
            self._wake.set()

    def stop(self, timeout: float) -> list[str]:
        """End the thread, and give up the blocks; the job ids that were given up."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        jobs = [self._executor.blocks_to_job_id[block] for block in self._active_blocks()]
        if jobs:
            self._executor.provider.cancel(jobs)
        return jobs

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._look()
            except (CommandClientTimeoutError, CommandClientBadError) as error:
                failure = EngineGone("The engine's interchange doesn't answer", detail=str(error))
                self._executor.set_bad_state_and_fail_all(failure)
                return
            except Exception:
                # a scheduler that is away for a moment is no reason to end; the provider's exceptions have no base
                log.exception("The engine's provider failed; trying again in %s s", self._period)
            settling = self.active > 0 and not self.managers
            self._wake.wait(min(SETTLING_PERIOD, self._period) if settling else self._period)
            self._wake.clear()

    def _look(self) -> None:
        executor = self._executor
        self._strategy.strategize([executor])
        if not executor.bad_state_is_set:
            executor.poll_facade()
            executor.handle_errors(executor.status_facade)
        self.active = len(self._active_blocks())
        managers = executor.connected_managers()
        if {manager["manager"] for manager in managers} - self.packages.keys():
            self.packages = executor.connected_managers_packages()
        self.managers = managers

    def _active_blocks(self) -> list[str]:
        status = self._executor.status_facade
        known = self._executor.blocks_to_job_id
        return [block for block, job in list(status.items()) if job.state not in TERMINAL_STATES and block in known]
