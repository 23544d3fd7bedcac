"""The audit log of a manager without a monitor: its own lines, and those of its user endpoints' pipes.

Where a monitor and keepers run, they do this, as root; here all belongs to one user, who can change the log: it shows a
change all the same, to whoever keeps its last hash elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from endpoint.privileged.audit import AuditLog
from endpoint.privileged.audit_lines import SESSION_BEGIN, SESSION_END
from endpoint.privileged.audit_tasks import TaskPipe, open_task_pipe


class ManagerAudit:
    """Everything that one manager writes. For the loop's thread.

    identity: fields of every line: `endpoint`, `uid`, `user`, `pid` of the manager.
    required: new work is refused while the log can't be written (high assurance); else it is warned of.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, required: bool) -> None:
        self._log = AuditLog(path)
        self._identity = dict(identity)
        self._required = required
        self._readers: set[_Reader] = set()

    def begin(self) -> None:
        """The manager starts. Raises AuditFailure where the log is required and can't be written."""
        self.event(SESSION_BEGIN)

    def event(self, event: str, **fields: Any) -> None:
        """Write a line. Raises AuditFailure where the log is required and can't be written."""
        record = {"event": event, **self._identity, **fields}
        if self._required:
            self._log.append(record, durable=True)
        else:
            self._log.note(record, durable=True)

    def pipe(self, user_endpoint: str) -> AuditPipe:
        """A pipe for the events of a user endpoint that is about to start. Raises AuditFailure, OSError."""
        if self._required:
            self._log.check()
        reader, writer = open_task_pipe(required=self._required)
        identity = {**self._identity, "user_endpoint": user_endpoint}
        tasks = TaskPipe(reader, self._log, identity, required=self._required)
        following = _Reader(tasks, self._readers.discard)
        self._readers.add(following)
        return AuditPipe(writer, tasks)

    def end(self) -> None:
        """The manager ends, and all its user endpoints have."""
        for reader in list(self._readers):
            reader.finish()
        self._log.note({"event": SESSION_END, **self._identity}, durable=True)
        self._log.close()


class AuditPipe:
    """The end of a pipe that a user endpoint inherits: `writer` for the document and `pass_fds`."""

    def __init__(self, writer: int, tasks: TaskPipe) -> None:
        self.writer = writer
        self._tasks = tasks
        self._given = False

    def given(self, pid: int | None) -> None:
        """The process has it, or (None) could not be started. Must be called, else nobody sees the end of the pipe."""
        if not self._given:
            self._given = True
            os.close(self.writer)
        if pid is not None:
            self._tasks.identity = {**self._tasks.identity, "pid": pid}


class _Reader:
    """Reads one pipe when there is something in it, until its end."""

    def __init__(self, tasks: TaskPipe, on_end: Callable[[_Reader], None]) -> None:
        self._tasks = tasks
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(tasks, self._read)

    def finish(self) -> None:
        """Take what is there now, and close it."""
        while self._tasks.pause_s == 0 and self._tasks.read() and self._is_ready():
            pass
        self._close()

    def _read(self) -> None:
        if not self._tasks.read():
            self._close()
        elif self._tasks.pause_s > 0:
            self._loop.remove_reader(self._tasks)
            self._pause = self._loop.call_later(self._tasks.pause_s, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._tasks, self._read)

    def _is_ready(self) -> bool:
        poller = select.poll()
        poller.register(self._tasks, select.POLLIN)
        return bool(poller.poll(0))

    def _close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._tasks)
        self._tasks.close()
        self._on_end(self)
