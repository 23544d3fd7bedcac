"""Keeps an executor's blocks: the first at once, more and fewer by Parsl's strategy, and the figures of both.

What Parsl's strategy asks for goes through the breaker and the administrator's limits. When the breaker opens and no
worker is left, what waits is answered with the words of the last block.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from parsl.executors.high_throughput.errors import CommandClientBadError, CommandClientTimeoutError
from parsl.jobs.states import TERMINAL_STATES, JobState, JobStatus
from parsl.jobs.strategy import Strategy

from endpoint.engines.block_limits import BlockLimits, Bucket
from endpoint.engines.block_words import last_words
from endpoint.engines.breaker import Breaker, State
from endpoint.engines.left_jobs import cancel_left_jobs
from endpoint.engines.parsl_executor import TiedExecutor
from endpoint.errors import BlocksFail, EngineGone

log = logging.getLogger(__name__)

SETTLING_PERIOD = 1.0  # seconds between looks while blocks are there whose workers haven't come yet
SOONEST_POLL_S = 2.0  # between questions to a batch system about a block that is new; older ones can wait longer
AGE_TO_POLL = 4.0
LAST_WORDS_S = 2.0

OnBlocked = Callable[["BlocksFail | None"], None]


class BlockKeeper:
    """A thread that looks at the blocks every `strategy_period` seconds, and when a task comes while there are none.

    on_blocked: told when no block is asked for any more, and with None when that is over.
    """

    def __init__(
        self,
        executor: TiedExecutor,
        *,
        strategy: str,
        max_idletime: float,
        strategy_period: float,
        breaker: Breaker,
        limits: BlockLimits,
        on_blocked: OnBlocked,
    ) -> None:
        self._executor = executor
        self._strategy = Strategy(strategy=strategy, max_idletime=max_idletime)
        self._period = strategy_period
        self._breaker = breaker
        self._most_blocks = limits.max_blocks
        self._bucket = Bucket(limits.max_blocks_per_minute)
        self._on_blocked = on_blocked
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="block-keeper", daemon=True)
        self._judged: set[str] = set()  # blocks of which it is known whether a worker came up
        self._asked_at: dict[str, float] = {}  # the others, by the time when they were asked for
        self._ended_at: dict[str, float] = {}  # blocks whose jobs have ended, and whose workers are not missed yet
        self._lost_at: dict[str, float] = {}  # those that had workers, by the time when all of them were missed
        self._owed: int | None = None  # of the initial blocks, those that could not be asked for yet
        self._failure: BlocksFail | None = None
        self.active = 0
        self.managers: list[dict[str, Any]] = []
        self.packages: dict[str, dict[str, str]] = {}
        executor.ask_for_blocks = self._ask

    def start(self) -> None:
        """Begin; the initial blocks are asked for right away."""
        self._strategy.add_executors([self._executor])
        self._thread.start()

    def task_submitted(self) -> None:
        """A task came: where no block is there, don't let it wait for the next look."""
        if self.active == 0:
            self._wake.set()

    @property
    def blocked(self) -> BlocksFail | None:
        """Why no block will come for a task of now; from any thread."""
        failure = self._failure
        return _again(failure) if failure is not None and self._breaker.pausing and not self.managers else None

    def condition(self) -> dict[str, Any]:
        """The breaker's part of a heartbeat; times in seconds since 1970."""
        breaker, failure = self._breaker, self._failure
        shown: dict[str, Any] = {"state": breaker.state.value, "since": round(breaker.since, 3)}
        if breaker.barren:
            shown["failed_blocks"] = breaker.barren
        if breaker.state is not State.CLOSED and failure is not None:
            shown |= {"probe_at": round(breaker.probe_at, 3), "reason": failure.failure.reason}
        return shown

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
        cancel_left_jobs(self._executor.provider, self._executor.job_prefix)
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
            self._wake.wait(self._pause())
            self._wake.clear()

    def _pause(self) -> float:
        settling = self._asked_at or self._ended_at or (self.active > 0 and not self.managers) or self._owed
        return min(SETTLING_PERIOD, self._period) if settling else self._period

    def _look(self) -> None:
        executor = self._executor
        if self._owed and self._breaker.state is State.CLOSED:
            executor.scale_out_facade(min(self._owed, executor.provider.max_blocks - len(self._active_blocks())))
        self._strategy.strategize([executor])
        if self._breaker.state is State.OPEN and executor.outstanding():
            executor.scale_out_facade(1)  # the probe; not every strategy asks for a block that it has lost
        if not executor.bad_state_is_set:
            executor.poll_after = self._poll_after()
            executor.poll_facade()
        managers = executor.connected_managers()
        self._judge()
        self._end_pools({manager["block_id"] for manager in managers})
        self.active = len(self._active_blocks())
        if {manager["manager"] for manager in managers} - self.packages.keys():
            self.packages = executor.connected_managers_packages()
        self.managers = managers
        self._see_to_waiting()

    # -- asking --------------------------------------------------------------------------------------------------------

    def _ask(self, wanted: int, submit: Callable[[int], list[str]]) -> list[str]:
        """Ask for as many of `wanted` blocks as may be asked for now."""
        active = len(self._active_blocks())
        allowed = wanted if self._most_blocks is None else min(wanted, self._most_blocks - active)
        allowed = self._breaker.allow(self._bucket.allow(allowed), len(self._asked_at))
        blocks = submit(allowed) if allowed > 0 else []
        if self._owed is None:
            self._owed = wanted
        self._owed = max(0, self._owed - allowed)
        self._bucket.take(max(0, allowed))
        new = self._executor.status_facade.keys() - self._judged - self._asked_at.keys()
        self._asked_at |= dict.fromkeys(new, time.monotonic())
        return blocks

    def _poll_after(self) -> float:
        """Seconds from one question to the batch system to the next.

        A new block that fails shows soon, and so does one that has ended, when its workers are missed.
        """
        now = time.monotonic()
        there = {manager["block_id"] for manager in self.managers}
        lost = [block for block in self._active_blocks() if block in self._judged and block not in there]
        self._lost_at = {block: self._lost_at.get(block, now) for block in lost}
        youngest = max([*self._asked_at.values(), *self._lost_at.values()], default=None)
        return float("inf") if youngest is None else max(SOONEST_POLL_S, (now - youngest) / AGE_TO_POLL)

    # -- how blocks ended ----------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Tell the breaker of each block whose worker has come up, and of each that has ended without."""
        if not self._asked_at:
            return
        connected = set(self._executor.connected_blocks())
        for block in sorted(self._asked_at, key=int):
            job = self._executor.status_facade.get(block)
            if block in connected:
                self._forget(block)
                self._breaker.worked()
            elif job is not None and job.terminal:
                self._forget(block)
                if job.state is not JobState.SCALED_IN:
                    self._was_barren(block, job)
        if self._breaker.state is State.CLOSED and self._failure is not None:
            log.warning("A block has a worker again; blocks are asked for as before")
            self._failure = None
            self._on_blocked(None)

    def _end_pools(self, there: set[str]) -> None:
        """Miss the workers of a job that has ended now, not when their heartbeats have been missing for long enough.

        What they sent last may still be on its way, so they have a moment.
        """
        now, status = time.monotonic(), self._executor.status_facade
        ended = [block for block in there if (job := status.get(block)) is not None and job.terminal]
        self._ended_at = {block: self._ended_at.get(block, now) for block in ended}
        if over := [block for block, since in self._ended_at.items() if now - since >= LAST_WORDS_S]:
            self._executor.end_blocks(over)

    def _forget(self, block: str) -> None:
        self._judged.add(block)
        del self._asked_at[block]

    def _was_barren(self, block: str, job: JobStatus) -> None:
        words = last_words(job, self._executor.worker_logdir, block)
        job_id = self._executor.blocks_to_job_id.get(block)
        log.warning("Block %s (job %s) ended before a worker came up: %s", block, job_id or "none", words)
        self._breaker.was_barren()
        self._wake.set()  # for the next one
        if self._breaker.state is State.OPEN:
            self._failure = _failure(self._breaker, words)
            self._on_blocked(self._failure)

    def _see_to_waiting(self) -> None:
        """Answer what waits for a block that will not come."""
        failure = self._failure
        if failure is not None and self._breaker.pausing and not self._asked_at and not self.managers:
            for future in self._executor.drop_waiting():
                future.set_exception(_again(failure))

    def _active_blocks(self) -> list[str]:
        status = self._executor.status_facade
        known = self._executor.blocks_to_job_id
        return [block for block, job in list(status.items()) if job.state not in TERMINAL_STATES and block in known]


def _failure(breaker: Breaker, words: str) -> BlocksFail:
    again = datetime.fromtimestamp(breaker.probe_at, timezone.utc).strftime("%H:%M:%S UTC")
    return BlocksFail(
        f"The last {breaker.barren} blocks (batch jobs) of the endpoint ended before a worker came up, so it asks for "
        f"no more of them now. The last one said: {words}",
        hint=f"Look at worker_init and the provider's options. A task that comes after {again} makes it try one block",
    )


def _again(failure: BlocksFail) -> BlocksFail:
    """The same for another task: an exception object belongs to one future."""
    return BlocksFail(failure.failure.reason, hint=failure.failure.hint)
