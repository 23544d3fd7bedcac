"""A worker's side of the endpoint's journal: it is written down that a task begins, before it does."""

from __future__ import annotations

import functools
import os
import socket
import time

GATE = "open"  # a file beside the journal's; workers begin nothing when it is gone

_host = functools.cache(socket.gethostname)


def start_line(task_id: str, when: float, host: str) -> bytes:
    """A mark as the journal has it; `when` in seconds since 1970."""
    return f"S {task_id} {when:.3f} {host}\n".encode()


def may_begin(task_id: str, journal: str | None) -> bool:
    """Whether the task may begin; if so, that is written into the file `journal` (None: nothing is to be written).

    False when the endpoint ends, when it is gone (a later one has a journal of its own), and when the disk is full.
    """
    if journal is None:
        return True
    line = b"\n" + start_line(task_id, time.time(), _host())
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
