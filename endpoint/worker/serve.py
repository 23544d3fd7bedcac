"""Tasks in a Python of the user's choice, for a worker that runs in another one: `python ZIP serve SOCKET ERRORS`.

SOCKET is a connected one, for frames (see `stream.py`). Ours are, first, a few words about this Python, as JSON, which
say that it is ready, and then a result for each task. A task is two frames: `[OPTIONS, ENVIRONMENT]` as JSON, and the
body. OPTIONS are those of `run_task`; ENVIRONMENT has the variables that have changed since the last task (None: gone).
ERRORS is where this process's errors go once it is ready; before that the worker keeps them, to say what is wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import signal
import socket
import sys
from collections.abc import Mapping

from endpoint.worker.run import run_task
from endpoint.worker.stream import RECEIVE_BYTES, FrameReader, send_frame

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(descriptor: int, errors: int) -> int:
    """Serve until the worker closes the socket, or ends."""
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        ready = {"python": platform.python_version(), "executable": sys.executable}
        os.dup2(errors, 2)
        os.close(errors)
        send_frame(connection, json.dumps(ready).encode())
        _serve(connection)
    return 0


def _end_with_parent() -> None:
    """Have the kernel kill this process, in the midst of a task too, when the worker ends; where it can do that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _serve(connection: socket.socket) -> None:
    frames, head = FrameReader(), b""
    while piece := connection.recv(RECEIVE_BYTES):
        for frame in frames.feed(piece):
            if not head:
                head = frame
                continue
            options, changes = json.loads(head)
            head = b""
            change_environment(changes)
            send_frame(connection, run_task(frame, options))


def change_environment(changes: Mapping[str, str | None]) -> None:
    """Set variables of this process; None removes one."""
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
