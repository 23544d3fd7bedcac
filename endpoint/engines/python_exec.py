"""Run a Python module as a program: `globus-compute-endpoint python-exec MODULE ARGS...`.

Parsl's processes are started this way, so that the environment in which the endpoint is installed is found, not
whatever is first on PATH. Worker nodes run this file, so it needs the standard library only.

`python -m endpoint.engines.python_exec --lifeline FIFO GROUP [--guard] ...` also ties the process to the endpoint's
life; with `--guard`, what the process leaves behind when it ends is ended too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

GONE = 75  # exit status: the endpoint is gone already


def run_module(module: str, args: list[str]) -> NoReturn:
    """Become `python -m MODULE ARGS...`."""
    os.execv(sys.executable, [sys.executable, "-m", module, *args])  # noqa: S606 - arguments as a list, no shell


def run_command(command: list[str]) -> NoReturn:
    """Become `command`, found on PATH."""
    os.execvp(command[0], command)  # noqa: S606 - arguments as a list, no shell


def tie_to_endpoint(fifo: str, endpoint_group: int) -> bool:
    """Have the kernel kill this process's group when the endpoint, which holds `fifo` open, ends in any way.

    The kernel signals the group by itself when the last writer of the FIFO is gone, so that neither a function that
    keeps the interpreter busy nor a dead parent in between matters. It holds over `exec`: the descriptor is left open.
    False when the endpoint is gone already. Nothing happens where the system can't do it (then heartbeats must do).
    """
    if not hasattr(fcntl, "F_SETSIG"):
        return True
    if os.getpgrp() == endpoint_group:
        os.setpgid(0, 0)  # never kill the group of whoever started the endpoint
    try:
        descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    os.set_inheritable(descriptor, True)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    try:
        return bool(os.read(descriptor, 1))  # nobody ever writes: this is the end of file, or "try again"
    except BlockingIOError:
        return True


def guard() -> None:
    """Go on in a child with a process group of its own; the parent waits for it, and ends what is left of that group.

    A worker pool that is killed would else leave its workers behind, which nothing ties to the endpoint then. Signals
    that ask the parent to end are handed on to the group.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        return
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)  # whoever comes first; the group must be there before a signal is

    def hand_on(number: int, _frame: FrameType | None) -> None:
        _signal_group(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, hand_on)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # not reaped yet, so that the group's number stays its own
    _signal_group(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def main(args: list[str]) -> NoReturn:
    """`[--lifeline FIFO GROUP [--guard]] (--command WORDS... | MODULE ARGS...)`."""
    if args[:1] == ["--lifeline"]:
        fifo, group, *args = args[1:]
        if args[:1] == ["--guard"]:
            args = args[1:]
            guard()
        if not tie_to_endpoint(fifo, int(group)):
            sys.exit(GONE)
    if not args:
        sys.exit("python-exec: which module?")
    if args[0] == "--command":
        run_command(args[1:])
    run_module(args[0], args[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
