"""One worker process: its socket, its group, and the tokens that say which of its tasks it may begin.

A worker process may be given several small tasks at once. For each there is a token in a counter that both sides hold
(an eventfd), and the worker takes one just before it begins a task. So the engine can take tasks back at any moment,
also from a process that hangs in the midst of one: the tokens that it still finds are those of the tasks given last.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from endpoint.engines.base import EngineTask
from endpoint.engines.lifeline import Lifeline
from endpoint.errors import EngineFailure
from endpoint.worker.stream import RECEIVE_BYTES, FrameReader, header

WORD = b"\n"  # a frame from the worker that is no result: it is ready, or it has put back what was taken back
JOINED_BYTES = 64 * 1024  # pieces below this are sent with one call


@dataclass(eq=False)
class Attempt:
    """A task that waits for a worker process, or is with one."""

    task: EngineTask
    future: Future[bytes] = field(default_factory=Future)
    taken: bool = False

    def take(self) -> bool:
        """Whether it may be given to a process: it was not cancelled."""
        self.taken = self.taken or self.future.set_running_or_notify_cancel()
        return self.taken


class WorkerProcess:
    """Made in any thread; after that for the thread of one event loop only.

    given: the tasks that it has and that are not answered, in their order.
    moved: when it last got something to do, or has last answered, of `time.monotonic`.
    count: how many tasks it was given and has kept. answered: how many of them are answered.
    """

    def __init__(self, lifeline: Lifeline, options: bytes, page: str | None) -> None:
        """options: what is the same for all its tasks, as JSON. page: see `Starts.new_page`. Raises EngineFailure."""
        self.page = page
        self.given: deque[Attempt] = deque()
        self.moved = time.monotonic()
        self.ready = False
        self.putting_back = False
        self.count = self.answered = 0
        self._frames = FrameReader()
        self._outgoing: deque[memoryview] = deque()
        ours, theirs = socket.socketpair()
        self._tokens = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        descriptors = (theirs.fileno(), self._tokens)
        command = [sys.executable, "-m", "endpoint.engines.process_worker", *map(str, descriptors), page or ""]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*command, *lifeline.arguments[1:]],
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            os.close(self._tokens)
            raise EngineFailure(f"The engine can't start a worker process: {error.strerror}") from error
        self.socket = ours
        # The end of the socket may come late: a process that a task forked holds it open, too.
        self.pid = self._process.pid
        self.exit = os.pidfd_open(self.pid)
        ours.setblocking(False)
        self._outgoing.append(memoryview(header(len(options)) + options))

    # -- tasks out, results in -----------------------------------------------------------------------------------------

    def give(self, attempts: Sequence[Attempt]) -> None:
        """Put tasks behind those that it has."""
        pieces: list[bytes] = []
        for attempt in attempts:
            task = attempt.task
            words = json.dumps([task.task_id, task.result_serializers]).encode()
            pieces.append(header(len(words)) + words + header(len(task.body)))
            pieces.append(task.body)
        if not self.given:
            self.moved = time.monotonic()
        self.given.extend(attempts)
        self.count += len(attempts)
        os.eventfd_write(self._tokens, len(attempts))  # before the tasks: one without a token is one taken back
        self._queue(pieces)

    def flush(self) -> bool:
        """Send what can be sent now; False where something is left."""
        try:
            while self._outgoing:
                sent = self.socket.send(self._outgoing[0])
                if sent == len(self._outgoing[0]):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = self._outgoing[0][sent:]
        except BlockingIOError:
            return False
        except OSError:  # it is gone, which shows when we read from it
            self._outgoing.clear()
        return True

    def receive(self) -> list[bytes] | None:
        """The frames that have come; None at the end of the stream."""
        try:
            piece = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return list(self._frames.feed(piece)) if piece else None

    def receive_rest(self) -> list[bytes]:
        """All that a process has sent which has ended."""
        frames: list[bytes] = []
        with contextlib.suppress(OSError):  # that nothing is there, too
            while piece := self.socket.recv(RECEIVE_BYTES):
                frames += self._frames.feed(piece)
        return frames

    def take_back(self) -> list[Attempt]:
        """The tasks that it has and has not begun, which it won't begin now."""
        number = self._unclaimed()
        if number == 0:
            return []
        self.putting_back = True
        words = json.dumps(number).encode()
        self._queue([header(len(words)) + words])
        return self._last(number)

    def _queue(self, pieces: list[bytes]) -> None:
        if sum(map(len, pieces)) <= JOINED_BYTES:
            pieces = [b"".join(pieces)]
        self._outgoing.extend(memoryview(piece) for piece in pieces if piece)

    def _last(self, number: int) -> list[Attempt]:
        found = [self.given.pop() for _ in range(min(number, len(self.given)))]
        self.count -= len(found)
        return found[::-1]

    def _unclaimed(self) -> int:
        number = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                number += os.eventfd_read(self._tokens)
        return number

    # -- its end -------------------------------------------------------------------------------------------------------

    def left(self) -> tuple[list[Attempt], list[Attempt]]:
        """Of a process that has ended: the tasks that it had begun, and those that it had not."""
        fresh = self._last(self._unclaimed())
        begun, self.given = list(self.given), deque()
        return begun, fresh

    def terminate(self) -> None:
        """Ask the process and its group to end."""
        self._signal(signal.SIGTERM)

    def end(self, patience: float = 0) -> str:
        """Wait so many seconds, then kill the group; says how the process ended, as the rest of a sentence."""
        if patience > 0:
            select.select([self.exit], [], [], patience)
        self._signal(signal.SIGKILL)  # it is not reaped yet, so that its group stays its own
        code = self._process.wait()
        return f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with status {code}"

    def release(self) -> None:
        """Close the descriptors; nobody may wait for them any more."""
        self.socket.close()
        for descriptor in (self._tokens, self.exit):
            os.close(descriptor)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name}, perhaps for want of memory" if number == signal.SIGKILL else name
