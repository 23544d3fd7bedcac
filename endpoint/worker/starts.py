"""A worker's side of the endpoint's journal: it is written down that a task begins, before it does."""

from __future__ import annotations

import functools
import mmap
import os
import socket
import time

GATE = "open"  # a file beside the journal's; workers begin nothing when it is gone
PAGE_LINES, LINE_BYTES = 128, 160  # of a worker process's page
NUMBER_DIGITS = 15  # at the end of each of its lines: which of the process's tasks it is

_host = functools.cache(socket.gethostname)


def start_line(task_id: str, when: float, host: str) -> bytes:
    """A mark as the journal has it; `when` in seconds since 1970."""
    return f"S {task_id} {when:.3f} {host}\n".encode()


def _block_line(task_id: str) -> bytes:
    """Which of Parsl's blocks begins the task, for the audit log; the journal does not ask."""
    block = os.environ.get("PARSL_WORKER_BLOCK_ID")
    return f"B {task_id} {block}\n".encode() if block else b""


def may_begin(task_id: str, journal: str | None) -> bool:
    """Whether the task may begin; if so, that is written into the file `journal` (None: nothing is to be written).

    False when the endpoint ends, when it is gone (a later one has a journal of its own), and when the disk is full.
    """
    if journal is None:
        return True
    line = b"\n" + _block_line(task_id) + start_line(task_id, time.time(), _host())
    try:
        if not os.access(f"{journal.rpartition('/')[0]}/{GATE}", os.F_OK):
            return False
        descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            return os.write(descriptor, line) == len(line)
        finally:
            os.close(descriptor)
    except OSError:
        return False


class Page:
    """The file of one worker process, mapped into its memory: its newest starts, each in a place of its own.

    A start costs no system call, and the kernel keeps it when the process is killed. There are more places than a
    worker process can have tasks that its engine has not yet seen the answers of.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError and ValueError for a file that is not a page."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, PAGE_LINES * LINE_BYTES)
        finally:
            os.close(descriptor)
        self._number = 0

    def begin(self, task_id: str) -> None:
        """Note that a task begins. The first byte comes last: a line is there whole, or not at all."""
        number = self._number
        begin = number % PAGE_LINES * LINE_BYTES
        line = start_line(task_id, time.time(), _host())[: LINE_BYTES - NUMBER_DIGITS - 2]
        line = line.ljust(LINE_BYTES - NUMBER_DIGITS - 1, b"-") + b"%0*d\n" % (NUMBER_DIGITS, number)
        self._map[begin] = ord("-")
        self._map[begin + 1 : begin + LINE_BYTES] = line[1:]
        self._map[begin] = line[0]
        self._number = number + 1
