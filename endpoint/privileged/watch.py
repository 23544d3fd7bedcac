"""A keeper's long wait: for the user endpoint's end, and meanwhile for monitors, audit lines and signals.

One loop waits for everything. It ends when no process of the user endpoint is left.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from endpoint.errors import EndpointError, Failure
from endpoint.privileged import lines
from endpoint.privileged.channel import Channel, Packet
from endpoint.privileged.child import Limits, told_error
from endpoint.privileged.descendants import has_children, kill_descendants, reap, signal_descendants
from endpoint.privileged.documents import LARGEST_CREDENTIALS, CredentialStore, check_document
from endpoint.privileged.steps import LONGEST_DETAIL, Step, StepFailed, failure_from, step_of

LARGEST_FAILURE = 64 * 1024  # bytes
LARGEST_STEPS = 16 * 1024  # bytes
KILL_AFTER_S = 2.0  # from asking what is left to ending it
AGAIN_S = 1.0  # between two attempts to end it
WARN_AFTER_S = 30.0  # of attempts
READ_BYTES = 64 * 1024
SIGNALS = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL}


class TaskLines(Protocol):
    """The reading end of a pipe with audit lines: `audit_tasks.TaskPipe`."""

    @property
    def pause_s(self) -> float: ...

    def fileno(self) -> int: ...

    def read(self) -> bool: ...

    def close(self) -> None: ...


@dataclass
class Outcome:
    """How it went with the child. `failure` and `step`: of one that never became a user endpoint."""

    status: int | None = None  # as wait(2) has it
    running: bool = False
    limits: Limits | None = None
    step: Step | None = None
    failure: Failure | None = None


@dataclass
class _Reading:
    """A pipe that is read to its end."""

    largest: int
    done: Callable[[bytes], None]
    data: bytearray = field(default_factory=bytearray)


class Watch:
    """Waits; `on_running` is called once, when the user endpoint runs."""

    def __init__(
        self,
        name: str,
        child: int,
        credentials: CredentialStore,
        end_s: float,
        on_running: Callable[[Outcome], None],
    ) -> None:
        self.outcome = Outcome()
        self._name = name
        self._child = child
        self._credentials = credentials
        self._end_s = end_s
        self._on_running = on_running
        self._selector = selectors.DefaultSelector()
        self._monitor: Channel | None = None
        self._listener: socket.socket | None = None
        self._tasks: TaskLines | None = None
        self._steps_told = self._failure_told = False
        self._left_since: float | None = None  # when the main process ended
        self._asked = False
        self._next_attempt = 0.0
        self._warned = False

    def add_steps(self, descriptor: int) -> None:
        """The pipe through which the child tells its steps."""
        self._add_pipe(descriptor, _Reading(LARGEST_STEPS, self._steps_ended))

    def add_failure(self, descriptor: int) -> None:
        """The pipe through which the user's program tells why it can't go on."""
        self._add_pipe(descriptor, _Reading(LARGEST_FAILURE, self._failure_ended))

    def add_tasks(self, tasks: TaskLines) -> None:
        """The pipe with audit lines."""
        self._tasks = tasks
        self._selector.register(tasks, selectors.EVENT_READ, self._task_lines)

    def add_listener(self, listener: socket.socket) -> None:
        """Where monitors connect."""
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def add_signals(self, descriptor: int) -> None:
        """What `signal.set_wakeup_fd` writes to."""
        self._selector.register(descriptor, selectors.EVENT_READ, lambda: self._signals(descriptor))

    def use_monitor(self, channel: Channel) -> None:
        """Speak with this monitor from now on, in place of another one."""
        self.drop_monitor()
        self._monitor = channel
        self._selector.register(channel, selectors.EVENT_READ, self._from_monitor)

    def tell(self, message: dict[str, Any]) -> None:
        """Tell the monitor, if there is one. One that doesn't listen hears the end from the runtime directory."""
        if self._monitor is not None:
            try:
                self._monitor.send(message)
            except (BlockingIOError, EndpointError):
                self.drop_monitor()

    def drop_monitor(self) -> None:
        """Speak with nobody."""
        if self._monitor is not None:
            self._selector.unregister(self._monitor)
            self._monitor.close()
            self._monitor = None

    def wait(self) -> Outcome:
        """Wait until no process of the user endpoint is left."""
        self._reap()
        while has_children():
            ready = self._selector.select(self._timeout())
            for key, _ in ready:
                key.data()
            self._reap()
            self._end_what_is_left()
            self._resume_tasks()
        self._read_the_rest()
        return self.outcome

    def close(self) -> None:
        """Close everything but the connection to the monitor, which ends with the process."""
        if self._tasks is not None:
            self._tasks.close()
        if self._listener is not None:
            self._listener.close()

    # -- the child ----------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        status = reap().get(self._child)
        if status is not None:
            self.outcome.status = status
            self._left_since = time.monotonic()

    def _add_pipe(self, descriptor: int, reading: _Reading) -> None:
        os.set_blocking(descriptor, False)
        self._selector.register(descriptor, selectors.EVENT_READ, lambda: self._read(descriptor, reading))

    def _read(self, descriptor: int, reading: _Reading) -> None:
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        reading.data += data
        if data and len(reading.data) <= reading.largest:
            return
        self._selector.unregister(descriptor)
        os.close(descriptor)
        reading.done(bytes(reading.data[: reading.largest + 1]))

    def _steps_ended(self, data: bytes) -> None:
        for line in data.splitlines():
            told = json.loads(line)
            if "limits" in told:
                self.outcome.limits = {key: (soft, hard) for key, (soft, hard) in told["limits"].items()}
            else:
                self._fail(StepFailed(Step(told["step"]), told_error(told["error"])))
        self._steps_told = True
        self._perhaps_running()

    def _failure_ended(self, data: bytes) -> None:
        if data and self.outcome.failure is None:
            self._fail(self._as_failure(data))
            # It has nothing more to do; what doesn't end by itself is ended like what a user endpoint leaves.
            self._left_since = self._left_since or time.monotonic()
        self._failure_told = True
        self._perhaps_running()

    def _as_failure(self, data: bytes) -> StepFailed | Failure:
        try:
            found = failure_from(json.loads(data)) if len(data) <= LARGEST_FAILURE else None
        except (ValueError, RecursionError):
            found = None
        if found is None:
            return StepFailed(Step.PREPARE, f"it told {data[: LONGEST_DETAIL // 8]!r}")
        return found

    def _fail(self, failure: StepFailed | Failure) -> None:
        if isinstance(failure, StepFailed):
            self.outcome.step, self.outcome.failure = failure.step, failure.failure
        else:
            self.outcome.step, self.outcome.failure = Step.PREPARE, failure

    def _perhaps_running(self) -> None:
        """Both pipes have ended: the user endpoint runs, or something failed."""
        if not (self._steps_told and self._failure_told) or self.outcome.running or self.outcome.failure is not None:
            return
        self._reap()
        if self.outcome.status is not None and step_of(os.waitstatus_to_exitcode(self.outcome.status)) is Step.PREPARE:
            self._fail(StepFailed(Step.PREPARE, "it ended without a word"))
            return
        if self.outcome.status is not None and self._asked:
            self._fail(StepFailed(Step.PREPARE, "it was ended before it ran"))
            return
        if self.outcome.status is not None and self.outcome.limits is None:
            # It had not come so far as to tell its limits: somebody has ended it, who can be the user.
            self._fail(StepFailed(Step.FORK, "it was ended before it became the user's program"))
            return
        self.outcome.running = True
        self._on_running(self.outcome)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _timeout(self) -> float | None:
        waits = []
        if self._left_since is not None:
            waits.append(self._next_attempt if self._asked else self._left_since + self._end_s)
        now = time.monotonic()
        if self._tasks is not None and (pause := self._tasks.pause_s) > 0:
            waits.append(now + pause)
        return max(0.0, min(waits) - now) if waits else None

    def _end_what_is_left(self) -> None:
        """Processes that the user endpoint left get their time, then SIGTERM, then SIGKILL until they are gone."""
        now = time.monotonic()
        if self._left_since is None or now < self._left_since + self._end_s or now < self._next_attempt:
            return
        sent = kill_descendants() if self._asked else signal_descendants(signal.SIGTERM)
        if sent:
            what = "ended" if self._asked else "asked to end"
            lines.info("keeper", f"{sent} processes that were left are {what}", user_endpoint=self._name)
        self._next_attempt = now + (AGAIN_S if self._asked else KILL_AFTER_S)
        self._asked = True
        if now > self._left_since + self._end_s + WARN_AFTER_S and not self._warned:
            self._warned = True
            lines.warning(
                "keeper", "Processes that were left can't be ended; waiting for them", user_endpoint=self._name
            )

    def _signal(self, number: int) -> None:
        """Ask the user endpoint to end, or end it with everything that it started."""
        if number == signal.SIGKILL:
            kill_descendants()
            self._left_since, self._end_s, self._asked = time.monotonic(), 0.0, True
        elif self.outcome.status is None:
            os.kill(self._child, number)  # not reaped, so the id is its own

    # -- monitors, signals, audit -------------------------------------------------------------------------------------

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        channel = Channel(connection)
        if channel.peer_uid() != os.geteuid():
            channel.close()
            return
        self.use_monitor(channel)
        if self.outcome.running:
            self._on_running(self.outcome)

    def _from_monitor(self) -> None:
        assert self._monitor is not None
        try:
            packet = self._monitor.receive()
        except BlockingIOError:
            return
        except EndpointError:
            self.drop_monitor()
            return
        try:
            self._obey(packet)
        except (EndpointError, OSError, KeyError) as error:
            lines.warning("keeper", f"The monitor asked for what can't be done: {error}", user_endpoint=self._name)
        finally:
            packet.close()

    def _obey(self, packet: Packet) -> None:
        request = packet.message.get("request")
        if request == "signal":
            self._signal(SIGNALS[packet.message["signal"]])
        elif request == "credentials" and len(packet.descriptors) == 1:
            check_document(packet.descriptors[0], LARGEST_CREDENTIALS)
            self._credentials.replace(packet.descriptors[0])

    def _signals(self, descriptor: int) -> None:
        with suppress(BlockingIOError):
            if signal.SIGTERM in os.read(descriptor, READ_BYTES):
                self._signal(signal.SIGTERM)

    def _task_lines(self) -> None:
        assert self._tasks is not None
        if not self._tasks.read():
            self._selector.unregister(self._tasks)
            self._tasks.close()
            self._tasks = None
        elif self._tasks.pause_s > 0:
            self._selector.unregister(self._tasks)

    def _resume_tasks(self) -> None:
        if self._tasks is not None and self._tasks.pause_s <= 0:
            with suppress(KeyError):  # it is waited for already
                self._selector.register(self._tasks, selectors.EVENT_READ, self._task_lines)

    def _read_the_rest(self) -> None:
        """What stands in the pipes when the last process is gone."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fd, int) and key.fileobj not in (self._monitor, self._listener):
                for _ in range(LARGEST_FAILURE // READ_BYTES + 2):
                    if key.fd not in self._selector.get_map():
                        break
                    key.data()
