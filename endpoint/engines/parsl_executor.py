"""Parsl's executors with their loose ends tied.

Left to itself an executor waits without limit for an interchange that is dead, and its users' futures stay
unanswered when the thread that reads results ends. Here each of these becomes one call of `when_bad`.
"""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import zmq
from parsl.executors.high_throughput.errors import CommandClientBadError, CommandClientTimeoutError
from parsl.executors.high_throughput.executor import HighThroughputExecutor
from parsl.executors.high_throughput.mpi_executor import MPIExecutor
from parsl.providers.errors import SubmitException

from endpoint.engines.interchange_names import DROP_WAITING, END_BLOCKS, PLACES, TELL_PLACES
from endpoint.errors import EngineFailure, EngineGone

COMMAND_TIMEOUT = 20.0  # seconds until an interchange that doesn't answer counts as dead
LOOK_UP_MS = 200
LOCAL_POLLING = 1.0
MANY, GATHER_S = 16, 0.001

OnPlaced = Callable[["Future[bytes]", str, str], None]


class TiedExecutor(HighThroughputExecutor):  # type: ignore[misc]
    """Set `when_bad` before `start`; it is called once at the most, from any thread."""

    when_bad: Callable[[EngineFailure], None]
    ask_for_blocks: Callable[[int, Callable[[int], list[str]]], list[str]]
    job_prefix: str  # of the names of all its jobs, and of nobody else's
    ending = False
    local = False
    poll_after = math.inf
    on_placed: OnPlaced | None = None

    @property
    def status_polling_interval(self) -> float:
        """Seconds between looks at the jobs; on this machine that costs nothing, and a failing block shows sooner."""
        interval: float = super().status_polling_interval
        return min(interval, LOCAL_POLLING if self.local else self.poll_after)

    def scale_out_facade(self, n: int) -> list[str]:
        """Ask for as many of `n` blocks as `ask_for_blocks` lets through; the blocks that were asked for."""
        return self.ask_for_blocks(n, super().scale_out_facade)

    def _launch_block(self, block_id: str) -> str:
        try:
            job: str | None = self.provider.submit(
                self._get_launch_command(block_id), 1, f"{self.job_prefix}{block_id}"
            )
        except SubmitException as error:
            said = str(error.stderr or error.stdout or "").strip() or error.message
            raise EngineFailure(f"The submit command failed: {said}") from error
        if not job:
            raise EngineFailure("The provider told no id of the new job")
        return job

    def end_blocks(self, blocks: list[str]) -> None:
        """Give up the pools of workers of blocks whose jobs have ended, with the tasks that they have."""
        self._ask((END_BLOCKS, blocks))

    def tell_places(self, on_placed: OnPlaced) -> None:
        """Have `on_placed` called for each task that a block gets, before its result comes; by the results' thread."""
        self.on_placed = on_placed
        self._ask(TELL_PLACES)

    def _placed(self, packet: bytes) -> None:
        for number, block, host in pickle.loads(packet):  # noqa: S301 - the interchange's own words
            if self.on_placed is not None and (attempt := self.tasks.get(number)) is not None:
                self.on_placed(attempt, block, host)

    def drop_waiting(self) -> list[Future[bytes]]:
        """Take back the tasks that no pool of workers has; whoever calls answers their futures."""
        numbers: list[int] = self._ask(DROP_WAITING) or []
        return [future for number in numbers if (future := self.tasks.pop(number, None)) is not None]

    def set_bad_state_and_fail_all(self, exception: Exception) -> None:
        """Also called by Parsl, for the interchange."""
        if self.bad_state_is_set or self.ending:
            return
        failure = exception
        if not isinstance(failure, EngineFailure):
            failure = EngineFailure("The engine can't go on", detail=str(exception))
        self._executor_exception = failure
        self._executor_bad_state.set()
        self.when_bad(failure)

    def shutdown(self, timeout: float = 10.0) -> None:
        """End the interchange; what it hasn't taken yet is dropped."""
        self.ending = True
        if hasattr(self, "outgoing_q"):
            self.outgoing_q.zmq_socket.setsockopt(zmq.LINGER, 0)  # else closing waits for a peer that may be dead
        super().shutdown(timeout)

    def _start_local_interchange_process(self) -> None:
        self.command_client.run = self._ask
        super()._start_local_interchange_process()
        threading.Thread(target=self._watch_interchange, name="watch-interchange", daemon=True).start()

    def _watch_interchange(self) -> None:
        status = self.interchange_proc.wait()
        self.set_bad_state_and_fail_all(EngineGone(f"The engine's interchange ended (status {status})"))

    def _ask(self, command: object, max_retries: int = 0, timeout_s: float | None = None) -> Any:
        """The interchange's answer. Raises CommandClientTimeoutError, then CommandClientBadError ever after."""
        client = self.command_client
        deadline = time.monotonic() + (timeout_s or COMMAND_TIMEOUT)
        with client._lock:
            if not client.ok:
                raise CommandClientBadError
            self._await(zmq.POLLOUT, deadline)
            client.zmq_socket.send_pyobj(command)
            self._await(zmq.POLLIN, deadline)
            return client.zmq_socket.recv_pyobj()

    def _await(self, event: int, deadline: float) -> None:
        """Wait for the command socket; only the thread that uses it may touch it, so look up now and then."""
        client = self.command_client
        while not client.zmq_socket.poll(LOOK_UP_MS, event):
            gone = self.ending or self.bad_state_is_set or self.interchange_proc.poll() is not None
            if gone or time.monotonic() > deadline:
                client.ok = False
                raise CommandClientTimeoutError

    def _result_queue_worker(self) -> None:
        self.incoming_q.get = _Gathered(self.incoming_q, self.tasks, self._result_queue_thread_exit, self._placed).get
        try:
            super()._result_queue_worker()
        finally:
            if not self._result_queue_thread_exit.is_set():
                self.set_bad_state_and_fail_all(EngineGone("The engine can't read results any more"))


class _Gathered:
    """Results as they come; while many tasks are on their way, those of a moment together.

    Each by itself would wake the endpoint's loop, and make it send a packet.
    """

    def __init__(
        self,
        incoming: Any,
        tasks: Mapping[int, object],
        ending: threading.Event,
        on_places: Callable[[bytes], None],
    ) -> None:
        self._socket = incoming.results_receiver
        self._get_one = incoming.get
        self._tasks = tasks
        self._ending = ending
        self._on_places = on_places

    def get(self, timeout_ms: int | None = None) -> Any:
        """The next one; None when there was none in time."""
        while (packet := self._next(timeout_ms)) is not None and packet.startswith(PLACES):
            self._on_places(packet[len(PLACES) :])
        return packet

    def _next(self, timeout_ms: int | None) -> Any:
        try:
            return self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            if len(self._tasks) >= MANY:
                self._ending.wait(GATHER_S)
            return self._get_one(timeout_ms=timeout_ms)


class TiedMPIExecutor(TiedExecutor, MPIExecutor):  # type: ignore[misc]
    """The same for Parsl's MPIExecutor."""

    @property
    def workers_per_node(self) -> float:
        """For Parsl's strategy, which multiplies it with the nodes of a block: a block has one pool of workers."""
        return float(self.max_workers_per_block / (self.provider.nodes_per_block or 1))
