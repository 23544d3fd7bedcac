"""Notice, without asking again and again, that the parent process is gone."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def watch_parent(expected: int | None, on_gone: Callable[[], None]) -> Callable[[], None]:
    """Call `on_gone` on the running loop when this process's parent ends; returns what undoes the watch.

    expected: the parent's PID as the start document tells it; where it is another one by now, the parent is gone.
    """
    loop = asyncio.get_running_loop()
    parent = os.getppid()
    if parent == 1 or (expected is not None and parent != expected):
        loop.call_soon(on_gone)
        return _nothing
    try:
        descriptor = os.pidfd_open(parent)
    except OSError:
        # Kernels before 5.3 have no such descriptor; there the kernel itself can send us the signal that stops us.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        return _nothing
    loop.add_reader(descriptor, on_gone)
    if os.getppid() != parent:  # it went between the two calls, and the PID may be somebody else's already
        loop.call_soon(on_gone)

    def undo() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)

    return undo


def _nothing() -> None:
    return None
