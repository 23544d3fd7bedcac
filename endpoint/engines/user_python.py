"""The user's own Python beside a worker of Parsl's: a process that runs the worker's tasks, one after the other.

It is started for the first task and stays for the worker's life; see `worker/serve.py` for its side. In it are the
standard library, what the user's environment has, and our zip: neither Parsl nor anything of the endpoint's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
from typing import IO, Any

from endpoint.worker.failures import CouldNotExecuteUserTaskError
from endpoint.worker.run import failed_task
from endpoint.worker.stream import RECEIVE_BYTES, FrameReader, send_frame

LIBRARIES = "GC_USER_LIBRARIES"  # LD_LIBRARY_PATH as worker_init left it; the pool's own may differ
LOOK_S = 0.5  # between looks whether the process is there: what it forked may hold its end of the socket open
START_S = 120.0  # a cold start from a busy shared file system
PATIENCE_S = 2.0
MOST_WORDS = 1000


class PythonLost(Exception):
    """The process ended in the midst of a task: the task is lost, as with a worker that dies."""


class _NoStart(Exception):
    """`str()` says, as a sentence, why the process can't be started."""


class UserPython:
    """For one thread. python: the program. program: our zip."""

    def __init__(self, python: str, program: str) -> None:
        self._python = python
        self._zip = program
        self._process: _Process | None = None

    def run_task(self, body: bytes, options: dict[str, Any]) -> bytes:
        """As `endpoint.worker.run.run_task`. Raises PythonLost."""
        if self._process is not None and not self._process.alive:
            self._process.end()  # between two tasks: what the last one left did that, and no task is lost by it
            self._process = None
        try:
            if self._process is None:
                self._process = _Process(self._python, self._zip)
        except _NoStart as why:
            return failed_task(options, CouldNotExecuteUserTaskError(str(why)))
        try:
            return self._process.run_task(body, options)
        except _Ended:
            how, self._process = self._process.end(), None
            raise PythonLost(f"{self._python}, which ran the task, {how}") from None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
            self._process = None


class _Ended(Exception):
    """The process has ended."""


class _Process:
    def __init__(self, python: str, program: str) -> None:
        self._frames = FrameReader()
        self._given = _environment()
        self._socket, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as words:
            try:
                errors = os.dup(2)
                try:
                    self._process = _start(python, program, theirs.fileno(), errors, words, self._given)
                finally:
                    os.close(errors)
                theirs.close()
                self._receive(START_S)  # it is ready
            except OSError as error:
                self._socket.close()
                raise _NoStart(f"The worker's Python {python} can't be started: {error.strerror}") from error
            except _Ended:
                how = self.end()
                raise _NoStart(f"The worker's Python {python} {how} before it took a task{_said(words)}") from None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run_task(self, body: bytes, options: dict[str, Any]) -> bytes:
        """Raises _Ended."""
        now = _environment()
        changes: dict[str, str | None] = {name: text for name, text in now.items() if self._given.get(name) != text}
        changes.update(dict.fromkeys(self._given.keys() - now.keys()))
        self._given = now
        try:
            send_frame(self._socket, json.dumps([options, changes]).encode())
            send_frame(self._socket, body)
        except OSError:
            raise _Ended from None
        return self._receive(None)

    def end(self) -> str:
        """End it; says how it ended, as the rest of a sentence."""
        self._socket.close()
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "did not answer and was ended"
        return f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with status {code}"

    def _receive(self, patience: float | None) -> bytes:
        looks = 0
        while True:
            if not select.select([self._socket], [], [], LOOK_S)[0]:
                looks += 1
                if self.alive and (patience is None or looks * LOOK_S < patience):
                    continue
                if not select.select([self._socket], [], [], 0)[0]:
                    raise _Ended
            try:
                piece = self._socket.recv(RECEIVE_BYTES)
            except OSError:
                piece = b""
            if not piece:
                raise _Ended
            for frame in self._frames.feed(piece):
                return frame  # there is one answer for each task, so nothing comes behind it


def _start(
    python: str, program: str, descriptor: int, errors: int, words: IO[bytes], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [python, program, "serve", str(descriptor), str(errors)],
        stdin=subprocess.DEVNULL,
        stderr=words,
        pass_fds=(descriptor, errors),
        env=environment,
    )


def _environment() -> dict[str, str]:
    """The variables for a task: this process's, with the library path that worker_init has set for its own Python."""
    environment = dict(os.environ)
    libraries = environment.pop(LIBRARIES, None)
    if libraries is not None:
        environment.pop("LD_LIBRARY_PATH", None)
        if libraries:
            environment["LD_LIBRARY_PATH"] = libraries
    return environment


def _said(words: IO[bytes]) -> str:
    """The last of what the process wrote, as the end of a sentence."""
    with contextlib.suppress(OSError):
        words.seek(max(0, words.seek(0, os.SEEK_END) - MOST_WORDS))
        text = " ".join(words.read(MOST_WORDS).decode(errors="replace").split())
        if text:
            return f": {text}"
    return ""


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name}, perhaps for want of memory" if number == signal.SIGKILL else name
