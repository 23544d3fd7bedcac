"""What a user endpoint says of its tasks: from its pipe to records of the audit log.

A user endpoint, ours or the official one, writes one packet for each event, as the official one does:

    fid=FUNCTION tid=TASK bid=BLOCK [jid=JOB ]EVENT[ - MESSAGE]

The user can write there too, and can write anything. So a packet gives a record with these fields, checked, and
nothing else; who it was comes from the reader, which made the pipe. What is not of this form is counted, and told once
a second. A pipe that brings more than `LINES_PER_S` is read no faster than that, so it fills, and whoever writes has
to wait or to drop: one user can neither fill the disk quickly nor keep the reader from its work.

`required`: no event may be lost. The pipe has room for one packet, which stays in it until it is in the log: a pipe
that can be written to tells the user endpoint that all it has said is written down. While it can't, it begins no task.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from endpoint.privileged import linux
from endpoint.privileged.audit import AuditFailure, AuditLog
from endpoint.privileged.audit_lines import TASK_EVENTS

LONGEST_PACKET: Final = 1024
LONGEST_MESSAGE: Final = 512
READ_BYTES: Final = 64 * 1024  # a packet is at most a page; without packets, that much at once
PACKETS_AT_ONCE: Final = 256
RECORDS_AT_ONCE: Final = 1024
PIPE_BYTES: Final = 1024 * 1024  # a packet takes a page of it
LINES_PER_S: Final = 1000.0
BURST_LINES: Final = 50_000.0
INVALID_EVERY_S: Final = 1.0
AGAIN_S: Final = 1.0  # until the next try to write a log that can't be written
EXAMPLE_CHARACTERS: Final = 100
INVALID: Final = "invalid-task-events"

_PACKET = re.compile(
    rf"fid=(?P<function>[0-9A-Za-z-]{{0,64}}) tid=(?P<task>[0-9A-Za-z-]{{0,64}}) bid=(?P<block>[!-~]{{0,64}})"
    rf" (?:jid=(?P<job>[!-~]{{1,128}}) )?(?P<event>{'|'.join(sorted(TASK_EVENTS))})(?: - (?P<message>.*))?"
)


def open_task_pipe(*, required: bool) -> tuple[int, int]:
    """A pipe for a user endpoint's events: what to read from, and what to give away. Raises OSError.

    One that is required has room for one packet: see `TaskPipe`.
    """
    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    os.set_blocking(reader, False)
    with suppress(OSError):  # the limit of this machine, or of this user
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, resource.getpagesize() if required else PIPE_BYTES)
    return reader, writer


def task_record(packet: bytes, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of one packet, with `identity` over whatever it says; None for what is not an event of a task."""
    if len(packet) > LONGEST_PACKET:
        return None
    found = _PACKET.fullmatch(packet.decode("utf-8", errors="replace").rstrip(" \r\n\0"))
    if found is None:
        return None
    record = {key: value for key, value in found.groupdict().items() if value}
    if message := record.get("message"):
        record["message"] = "".join(char if char.isprintable() else " " for char in message[:LONGEST_MESSAGE])
    return {"event": record.pop("event"), **record, **identity}


class TaskPipe:
    """The reading end of one user endpoint's pipe. Ready to be waited for (`fileno`) while `pause_s` is zero.

    identity: what each record says of who it was: `endpoint`, `user_endpoint`, `uid`, `user`, `pid`; the caller may
    replace it.
    """

    def __init__(
        self,
        reader: int,
        audit: AuditLog,
        identity: Mapping[str, Any],
        *,
        required: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity = identity
        self._reader = reader
        self._audit = audit
        self._required = required
        self._clock = clock
        self._left = BURST_LINES
        self._filled = clock()
        self._not_before = self._filled
        self._invalid, self._example = 0, b""
        self._invalid_told = self._filled - INVALID_EVERY_S
        self._pending: list[dict[str, Any]] = []  # records that the log has not taken
        # Required only: where packets are looked at, and the size of one that was and is still in the pipe.
        self._copies, self._copy_to = _small_pipe() if required else (-1, -1)
        self._looked_at = 0

    def fileno(self) -> int:
        """The pipe's descriptor, for whoever waits."""
        return self._reader

    @property
    def pause_s(self) -> float:
        """How long it should not be waited for: the log can't be written, or the user is too quick."""
        return max(0.0, self._not_before - self._clock())

    def read(self) -> bool:
        """Read what is there, up to a bound, and write it to the log; False at the end. Never raises, and waits for
        nothing but the log's lock.

        In a pause nothing is read.
        """
        if self.pause_s > 0 or not self._write():
            return True
        self._refill()
        open_still = True
        for _ in range(PACKETS_AT_ONCE):
            try:
                data = self._look() if self._required else os.read(self._reader, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                open_still = False
                break
            self._take(data)
            if self._left < 1:
                self._not_before = self._clock() + (PACKETS_AT_ONCE - self._left) / LINES_PER_S
            if self._left < 1 or len(self._pending) >= RECORDS_AT_ONCE or (self._required and not self._write()):
                break
        self._tell_invalid(now=not open_still)
        return not self._write() or open_still

    def _look(self) -> bytes:
        """The next packet, which stays in the pipe until `_write` has it in the log. Raises BlockingIOError."""
        self._looked_at = linux.tee(self._reader, self._copy_to, READ_BYTES)
        return os.read(self._copies, READ_BYTES) if self._looked_at else b""

    def close(self) -> None:
        """Close the pipe. What the log has not taken by now is counted as lost."""
        for record in self._pending:
            self._audit.note(record)
        self._pending = []
        for descriptor in (self._reader, self._copies, self._copy_to):
            if descriptor >= 0:
                os.close(descriptor)

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(BURST_LINES, self._left + (now - self._filled) * LINES_PER_S)
        self._filled = now

    def _take(self, data: bytes) -> None:
        """One packet, or what came of a pipe without packets: then a newline ends each of them."""
        for line in data.split(b"\n"):
            if not line:
                continue
            self._left -= 1
            record = task_record(line, self.identity)
            if record is not None:
                self._pending.append(record)
            else:
                self._invalid, self._example = self._invalid + 1, line[:EXAMPLE_CHARACTERS]

    def _tell_invalid(self, *, now: bool) -> None:
        if self._invalid and (now or self._clock() - self._invalid_told >= INVALID_EVERY_S):
            example = self._example.decode("ascii", errors="backslashreplace")
            self._pending.append({"event": INVALID, "lines": self._invalid, "example": example, **self.identity})
            self._invalid, self._invalid_told = 0, self._clock()

    def _write(self) -> bool:
        """Whether nothing is left to write."""
        if not self._pending:
            self._done_with_packet()
            return True
        try:
            self._audit.extend(self._pending)
        except AuditFailure as failure:
            if self._required:
                self._audit.warn(failure)
                self._not_before = self._clock() + AGAIN_S
                return False
            self._audit.lost(len(self._pending), failure)
        self._pending = []
        self._done_with_packet()
        return True

    def _done_with_packet(self) -> None:
        """Take a packet that was looked at out of the pipe, by which the user endpoint sees that it is written down."""
        if self._looked_at:
            os.read(self._reader, self._looked_at)
            self._looked_at = 0


def _small_pipe() -> tuple[int, int]:
    """A pipe for one packet. Raises OSError."""
    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, resource.getpagesize())
    return reader, writer
