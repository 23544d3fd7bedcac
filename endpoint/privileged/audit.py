"""The audit log: one line for each event, appended by every process that has something to say.

Monitor and keepers (and the manager of a single-user endpoint) append to the same file, one at a time: each takes the
file's lock, reads the end if another process has written since, and adds lines that carry the hash of the one before
(`audit_lines.py`). So a line that is changed, removed or put in shows, also when it happens while the log is in use.

The lock is bounded: whoever may read the file could hold it, and must not hold up more than the records.

Rotation is a rename, and a new file if one is wanted (logrotate's `create`): under the lock each process looks whether
its file still has the name. The first line of a new file names the file that it continues, and has its last hash.

A crash, or a full disk, can cut off the last line. The next append ends that line, and a record says so.

Nothing is forced to the disk unless that is asked for (`durable`): what is written survives the process, not the
machine's loss of power. This is for one thread at a time.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from endpoint.errors import EndpointError, Mender, Stage
from endpoint.privileged.audit_lines import (
    DROPPED,
    NOTHING_BEFORE,
    OPENED,
    TORN,
    hash_of,
    json_line,
    official_line,
    read_line,
)

log = logging.getLogger(__name__)

AuditFormat = Literal["json", "official"]

LOCK_S: Final = 2.0  # how long an append waits for the others
LAST_LINE_S: Final = 0.2  # the same, for a file that was renamed
LOCK_POLL_S: Final = 0.0002
WARN_S: Final = 60.0  # between two warnings that the log can't be written
TAIL_BYTES: Final = 32 * 1024  # of the end are read at first
LARGEST_TAIL_BYTES: Final = 1024 * 1024  # a last line that is longer is none of ours
MODES: Final = 0o640  # no other permission than these
ROTATIONS_AT_ONCE: Final = 10
ROTATED_READ: Final = 8  # files beside a new one, the newest, that it may continue
PACKED: Final = (".gz", ".xz", ".bz2", ".zst")


class AuditFailure(EndpointError):
    """The audit log can't be written, or is a file that others could change."""

    mender = Mender.ADMIN
    stage = Stage.RUN
    code = "AUDIT_LOG"


@dataclass(frozen=True)
class _Tail:
    """How a file ends: its size, its last record's number, its last line's hash, the bytes of one that is cut off."""

    size: int
    number: int
    previous: str
    torn: int = 0


class AuditLog:
    """One file. Opened at the first append; a process that was forked from this one opens it anew."""

    def __init__(self, path: str | Path, *, audit_format: AuditFormat = "json") -> None:
        self.path = Path(path)
        self._chained = audit_format == "json"
        self._descriptor: int | None = None
        self._owner = os.getpid()
        self._tail: _Tail | None = None
        self._unwritten = 0  # records that `note` could not write
        self._warned: float | None = None

    def append(self, record: Mapping[str, Any], *, durable: bool = False) -> None:
        """Add one record: texts, numbers, booleans and None by their names; `event` is one of them.

        durable: force it to the disk, too. Raises AuditFailure.
        """
        self.extend([record], durable=durable)

    def extend(self, records: Iterable[Mapping[str, Any]], *, durable: bool = False) -> None:
        """Add several records in one go: all, or none. Raises AuditFailure."""
        lost = self._unwritten
        try:
            descriptor = self._locked()
            try:
                self._write(descriptor, [{"event": DROPPED, "lines": lost}, *records] if lost else list(records))
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            if durable:
                os.fdatasync(descriptor)
        except OSError as error:
            raise AuditFailure(
                f"The audit log {self.path} can't be written: {error.strerror or error}",
                hint="It is made again where its directory is there, and needs space",
            ) from error
        if lost:
            log.warning("The audit log %s can be written again; %d records are lost", self.path, lost)
            self._unwritten, self._warned = 0, None

    def note(self, record: Mapping[str, Any], *, durable: bool = False) -> bool:
        """As `append`, where work goes on without a record: False, and a warning once a minute, if it fails."""
        try:
            self.append(record, durable=durable)
        except AuditFailure as failure:
            self.lost(1, failure)
            return False
        return True

    def lost(self, records: int, failure: AuditFailure) -> None:
        """Count records that could not be written, for the one that says so later; see `warn`."""
        self._unwritten += records
        self.warn(failure)

    def check(self) -> None:
        """Whether a record could be written now; adds none, but makes the file. Raises AuditFailure."""
        self.extend([])

    def warn(self, failure: AuditFailure) -> None:
        """Log the failure, unless that was done within the last minute."""
        now = time.monotonic()
        if self._warned is None or now - self._warned >= WARN_S:
            self._warned = now
            log.error("%s", failure.failure.for_admin(), extra=failure.failure.fields)

    def close(self) -> None:
        """Close the file; another append opens it again."""
        if self._descriptor is not None and self._owner == os.getpid():
            os.close(self._descriptor)
        self._descriptor = self._tail = None

    # -- the file under its name, locked -----------------------------------------------------------------------------

    def _locked(self) -> int:
        """The file that has the name now, with its lock held. Raises OSError, AuditFailure."""
        if self._owner != os.getpid():
            # A lock belongs to the open file, which parent and child share. The number may be another file's by now.
            self._owner, self._descriptor, self._tail = os.getpid(), None, None
        deadline = time.monotonic() + LOCK_S
        left: int | None = None
        try:
            for _ in range(ROTATIONS_AT_ONCE):
                if self._descriptor is None:
                    self._descriptor = _open(self.path)
                _lock(self._descriptor, deadline)
                if _is_named(self._descriptor, self.path) and self._see_end(self._descriptor, left):
                    return self._descriptor
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                if left is None or os.fstat(self._descriptor).st_size:
                    left, self._descriptor = self._descriptor, left
                if self._descriptor is not None:
                    os.close(self._descriptor)
                self._descriptor = self._tail = None
        finally:
            if left is not None:
                os.close(left)
        raise OSError(errno.EAGAIN, "it is renamed again and again")

    def _see_end(self, descriptor: int, left: int | None) -> bool:
        """Know where the chain stands; False where the file has lost its name meanwhile.

        left: the file that had the name before.
        """
        try:
            size = os.fstat(descriptor).st_size
            if self._tail is not None and self._tail.size == size:
                return True
            self._tail = _tail_of(descriptor, size)
            if size == 0 and self._chained:
                name, before = _predecessor(self.path, descriptor, left)
                if not _is_named(descriptor, self.path):  # the next file may have taken this one for empty
                    return False
                self._tail = _Tail(0, before.number, before.previous)
                self._write(descriptor, [{"event": OPENED, "after": name}])
            return True
        except BaseException:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            raise

    def _write(self, descriptor: int, records: list[Mapping[str, Any]]) -> None:
        """All records, or none: what a full disk has cut off is taken back. Raises OSError."""
        tail = self._tail
        assert tail is not None
        lines: list[bytes] = []
        if tail.torn:
            lines.append(b"")  # ends the line
            records = [{"event": TORN, "bytes": tail.torn}, *records]
        number, previous = tail.number, tail.previous
        for record in records:
            if self._chained:
                number += 1
                line = json_line(number, record, previous)
                previous = hash_of(line)
            else:
                line = official_line(record)
            lines.append(line)
        if not lines:
            return
        data = b"\n".join([*lines, b""])
        self._tail = None
        written = os.write(descriptor, data)
        if written != len(data):
            with suppress(OSError):
                os.ftruncate(descriptor, tail.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._tail = _Tail(tail.size + written, number, previous)


def _open(path: Path) -> int:
    """Open the log, made if it isn't there. Raises OSError, and AuditFailure for a file that others could change."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        folder = path.parent.stat()
        wrong = _what_is_wrong(os.fstat(descriptor))
        if folder.st_mode & 0o002 and not folder.st_mode & stat.S_ISVTX:
            wrong = f"everybody can write to its directory {path.parent}"
        elif folder.st_uid not in (0, os.geteuid()):
            wrong = f"its directory {path.parent} belongs to uid {folder.st_uid}, who could put another file there"
        if wrong:
            raise AuditFailure(
                f"The audit log {path} is not used: {wrong}",
                hint="Give it a place, an owner and a mode (0600 or 0640) that let nobody else write to it",
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _what_is_wrong(facts: os.stat_result) -> str | None:
    if not stat.S_ISREG(facts.st_mode):
        return "it is not a file"
    if facts.st_uid != os.geteuid():
        return f"it belongs to uid {facts.st_uid}, and this process has uid {os.geteuid()}"
    if stat.S_IMODE(facts.st_mode) & ~MODES:
        return f"its mode is {stat.S_IMODE(facts.st_mode):04o}"
    return "it has several names" if facts.st_nlink > 1 else None


def _lock(descriptor: int, deadline: float) -> None:
    """Raises TimeoutError, an OSError."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds its lock") from None
            time.sleep(LOCK_POLL_S)


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    opened = os.fstat(descriptor)
    try:
        named = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - once for each record: a third of Path.stat's time
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)


def _tail_of(descriptor: int, size: int) -> _Tail:
    """The end of a file, by reading it. Raises OSError."""
    if size == 0:
        return _Tail(0, 0, NOTHING_BEFORE)
    reach = TAIL_BYTES
    while True:
        begin = max(0, size - reach)
        lines = os.pread(descriptor, size - begin, begin).split(b"\n")
        torn = len(lines.pop())
        whole = lines[1:] if begin else lines
        record = next((found for line in reversed(whole) if (found := read_line(line))), None)
        if record is not None or begin == 0 or reach >= LARGEST_TAIL_BYTES:
            break
        reach *= 4
    last = os.pread(descriptor, torn, size - torn) if torn else (whole or [b""])[-1]
    return _Tail(size, record["number"] if record else 0, hash_of(last), torn)


def _predecessor(path: Path, new: int, left: int | None) -> tuple[str | None, _Tail]:
    """The file that a new one continues: its name and its end. None where the chain begins.

    Of the files beside it, and the one that this process has just left (which may have been packed or removed
    meanwhile), that is the one with the highest number: a copy is older. Raises OSError.
    """
    best: tuple[str | None, _Tail] = (None, _Tail(0, 0, NOTHING_BEFORE))
    for found in _rotated(path):
        with suppress(OSError):
            descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if _what_is_wrong(os.fstat(descriptor)) is None and not _is_named(new, found):
                    tail = _locked_tail(descriptor)
                    best = (found.name, tail) if tail.number > best[1].number else best
            finally:
                os.close(descriptor)
    if left is not None:
        tail = _locked_tail(left)
        best = ("a file that is not here", tail) if tail.number > best[1].number else best
    return best


def _rotated(path: Path) -> list[Path]:
    """The files beside `path` that a rotation may have made of it, the newest first."""
    beginnings = (f"{path.name}.", f"{path.name}-")
    found: list[tuple[int, Path]] = []
    for one in path.parent.iterdir():
        if one.name.startswith(beginnings) and one.suffix not in PACKED:
            with suppress(OSError):
                found.append((one.lstat().st_mtime_ns, one))
    return [one for _, one in sorted(found, reverse=True)[:ROTATED_READ]]


def _locked_tail(descriptor: int) -> _Tail:
    """The end of a file that has lost its name; whoever is in the midst of writing to it ends that first.

    That takes a moment: somebody who keeps the lock for longer does not write.
    """
    with suppress(TimeoutError):
        _lock(descriptor, time.monotonic() + LAST_LINE_S)
    try:
        return _tail_of(descriptor, os.fstat(descriptor).st_size)
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
