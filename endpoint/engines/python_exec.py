"""Run a Python module as a program: `globus-compute-endpoint python-exec MODULE ARGS...`.

Parsl's processes are started this way, so that the environment in which the endpoint is installed is found, not
whatever is first on PATH. Worker nodes run this file, so it needs the standard library only.

`python -m endpoint.engines.python_exec --lifeline FIFO GROUP [--guard] ...` also ties the process to the endpoint's
life; with `--guard`, what the process leaves behind when it ends is ended too. A container's first process is such a
guard: it hands signals on and reaps, as a first process must.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
GUARDED = "GC_GUARDED"  # in the environment: the id of the process that a guard looks after
ASK_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GONE = 75  # exit status: the endpoint is gone already


def run_module(module: str, args: list[str]) -> NoReturn:
    """Become `python -m MODULE ARGS...`, isolated from the environment's variables where this Python is.

    From within the workers' zip: become `python ZIP run MODULE ARGS...`.
    """
    isolated = ["-I"] if sys.flags.isolated else []
    archive = getattr(globals().get("__loader__"), "archive", None)
    start = [archive, "run"] if archive else ["-m"]
    os.execv(sys.executable, [sys.executable, *isolated, *start, module, *args])  # noqa: S606 - arguments as a list, no shell


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
    _tie_group(descriptor)
    try:
        return bool(os.read(descriptor, 1))  # nobody ever writes: this is the end of file, or "try again"
    except BlockingIOError:
        return True


def _tie_group(descriptor: int) -> None:
    os.set_inheritable(descriptor, True)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)


def guard_in_job() -> None:
    """As `guard`, for a process of a batch job that nobody guards yet.

    A batch system that knows a job by its process group kills all of it at once, guards too. So the guard leaves the
    group, and ends everything when the process that it leaves there ends in any way.
    """
    if os.environ.pop(GUARDED, "") == str(os.getpid()):
        return
    mine, parents = os.pipe()
    guarding = os.fork()
    if guarding:
        os.close(mine)
        _stand_for(guarding)
    os.close(parents)
    os.setpgid(0, 0)
    guard(mine)
    del os.environ[GUARDED]


def _stand_for(child: int) -> NoReturn:
    for number in ASK_TO_END:
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    _exit_like(status)


def guard(line: int | None = None) -> None:
    """Go on in a child with a process group of its own; the parent waits for it, and ends all that it leaves behind.

    A worker pool that is killed would else leave its workers, which nothing ties to the endpoint then, and what they
    started in groups of its own, as `mpiexec` does with ranks. Signals that ask the parent to end are handed on to the
    child's group, which also ends with the parent, however that ends.

    line: a descriptor; at the end of its file everything is ended.
    """
    _adopt_orphans()
    mine, parents = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(parents)
        if hasattr(fcntl, "F_SETSIG"):
            _tie_group(mine)
        os.environ[GUARDED] = str(os.getpid())
        return
    os.close(mine)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)  # whoever comes first; the group must be there before a signal is

    def hand_on(number: int, _frame: FrameType | None) -> None:
        _signal_group(child, number)

    for number in ASK_TO_END:
        signal.signal(number, hand_on)
    if line is not None and _signal_at_end(line, lambda *_: _signal_group(child, signal.SIGKILL)):
        _signal_group(child, signal.SIGKILL)
    # The child is not reaped yet, so that the group's number stays its own.
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) is not None and ended.si_pid != child:
        os.waitpid(ended.si_pid, 0)
    _signal_group(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    _end_orphans()
    _exit_like(status)


def _exit_like(status: int) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _signal_at_end(line: int, handler: Callable[[int, FrameType | None], None]) -> bool:
    """Have `handler` called at the end of the pipe `line`, to which nobody writes. Whether it has ended already."""
    signal.signal(signal.SIGIO, handler)
    fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        return not os.read(line, 1)
    except BlockingIOError:
        return False


def _adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends; nothing where the system can't do it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_orphans() -> None:
    """Kill the children, then those that are left to this process by that, until nobody is there whom it may kill."""
    while killed := [pid for pid in _children() if _kill(pid)]:
        for pid in killed:
            os.waitpid(pid, 0)


def _children() -> list[int]:
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = stat.read_text(errors="replace").rpartition(")")[2].split()[1]  # a name may have ")" in it
            if int(parent) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def main(args: list[str]) -> NoReturn:
    """`[--lifeline FIFO GROUP] [--guard] (--command WORDS... | MODULE ARGS...)`."""
    line: list[str] = []
    if args[:1] == ["--lifeline"]:
        line, args = args[1:3], args[3:]
    if args[:1] == ["--guard"]:
        args = args[1:]
        guard()
    if line and not tie_to_endpoint(line[0], int(line[1])):
        sys.exit(GONE)
    if not args:
        sys.exit("python-exec: which module?")
    if args[0] == "--command":
        run_command(args[1:])
    run_module(args[0], args[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
