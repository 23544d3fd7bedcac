"""One process per endpoint: the PID file as a lease that names its holder.

The file is JSON: `pid`, `host`, `machine` (machine id), `boot_id`, `pid_namespace`, `process_start` (clock ticks after
boot, as in /proc/PID/stat), and `kept_every` (seconds; only while the holder renews the file's time). The number of a
process alone says nothing: after a reboot, or in a home directory that two login nodes share, it names another one.
The file of the official endpoint, which is a plain number whose file is touched every 15 s, is understood.

An OS lock on the file decides between two that start at once, where the file system has locks.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from endpoint.errors import AlreadyRunning, ConfigError

log = logging.getLogger(__name__)

KEPT_EVERY = 15  # seconds; the official endpoint takes a file touched less than 30 s ago for a running endpoint
LARGEST_FILE = 65536  # bytes that are read of a file
FRESH = 90  # seconds; a lease of a host that we can't look into is believed for so long after its last renewal

State = Literal["running", "stale", "elsewhere", "none"]
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class Holder:
    """The process that a lease names, and where it is."""

    pid: int
    host: str | None = None  # None: an official PID file, which doesn't say
    machine: str | None = None
    boot_id: str | None = None
    pid_namespace: int | None = None
    process_start: int | None = None
    kept_every: int | None = None


@dataclass(frozen=True)
class LeaseState:
    """What a PID file says now.

    running: the process runs on this host. elsewhere: it is on another host (or in another container), and may run.
    stale: it is gone. none: there is no file.
    """

    state: State
    pid: int | None = None
    host: str | None = None
    process_start: int | None = None


def process_start(pid: int) -> int | None:
    """When the process was started, in clock ticks after boot; None where it is gone (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def this_process() -> Holder:
    """This process as the holder of a lease."""
    return Holder(
        pid=os.getpid(),
        host=os.uname().nodename,
        machine=_first_line("/etc/machine-id"),
        boot_id=_first_line("/proc/sys/kernel/random/boot_id"),
        pid_namespace=Path("/proc/self/ns/pid").stat().st_ino,
        process_start=process_start(os.getpid()),
    )


def read_small(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """The first bytes of a file, which may be in a directory of somebody else's; raises OSError.

    Not of a link there, nor of a pipe that nobody writes to, nor of a device without an end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.pread(descriptor, largest, 0)
    finally:
        os.close(descriptor)


def read_lease(path: Path) -> LeaseState:
    """What the PID file says; never changes anything. ConfigError if it can't be read."""
    try:
        # As in `read_small`; the lock of an open file is of use here.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return _state_of(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return LeaseState("none")
    except OSError as error:
        raise _unusable(path, error) from error


def open_process(found: LeaseState) -> int | None:
    """A pidfd of the process that a lease found running; None if it ended meanwhile. The caller closes it.

    A signal through it can't hit a later process with the same number.
    """
    if found.pid is None:
        return None
    try:
        descriptor = os.pidfd_open(found.pid)
    except ProcessLookupError:
        return None
    # The number may have been given away between reading the lease and opening it; not any more after it.
    if not _same_start(process_start(found.pid), found.process_start):
        os.close(descriptor)
        return None
    return descriptor


class Lease:
    """The PID file, held by this process. A context manager; leaving it removes the file."""

    def __init__(self, path: Path, descriptor: int, holder: Holder) -> None:
        self.path = path
        self._descriptor = descriptor
        self._holder = holder
        # A lock belongs to every process that has the open file. What a killed holder has forked must not keep it.
        os.register_at_fork(after_in_child=self._drop)

    @classmethod
    def take(cls, path: Path) -> Lease:
        """Take the lease, or raise AlreadyRunning with who holds it and where. A stale one is taken over."""
        try:
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                try:
                    if lease := cls._take_open_file(path, descriptor):
                        return lease
                except BaseException:
                    os.close(descriptor)
                    raise
                os.close(descriptor)
        except OSError as error:
            raise _unusable(path, error) from error

    @classmethod
    def _take_open_file(cls, path: Path, descriptor: int) -> Lease | None:
        """None: the file was replaced while we were looking; look again."""
        locked = _lock(descriptor)
        found = _state_of(descriptor, unlocked=locked is True)
        if locked is False or found.state in ("running", "elsewhere"):
            raise _already_running(path, found)
        if not _is_at(path, descriptor):
            return None
        if found.state == "stale":
            where = f" on {found.host}" if found.host else ""
            log.warning("Taking over the PID file of process %s%s, which is gone", found.pid, where)
        lease = cls(path, descriptor, this_process())
        lease._write()
        return lease

    def _write(self) -> None:
        body = {key: value for key, value in asdict(self._holder).items() if value is not None}
        text = json.dumps(body).encode() + b"\n"
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))

    async def keep(self, lost: Callable[[], None], every: float = KEPT_EVERY) -> None:
        """Renew the file's time until cancelled. Calls `lost` once, and returns, when the file is no longer ours.

        Somebody who removes the file, perhaps from another host, wants this endpoint to stop.
        """
        import asyncio  # here, because commands that only read a lease should stay quick

        self._holder = Holder(**{**asdict(self._holder), "kept_every": max(1, round(every))})
        self._write()
        while True:
            await asyncio.sleep(every)
            try:
                if not _is_at(self.path, self._descriptor):
                    break
                os.utime(self._descriptor)
            except OSError as error:
                if error.errno == errno.ESTALE:
                    break
                log.warning("The PID file %s can't be renewed: %s", self.path, error.strerror)
        log.warning("The PID file %s was removed by another process", self.path)
        lost()

    def release(self) -> None:
        """Remove the file if it is still ours, and unlock. A child made by fork has no say. Idempotent."""
        if self._descriptor < 0 or os.getpid() != self._holder.pid:
            return
        with suppress(OSError):
            if _is_at(self.path, self._descriptor):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = -1

    def _drop(self) -> None:
        """In a child made by fork: leave the lease to the parent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _state_of(descriptor: int, *, unlocked: bool = False) -> LeaseState:
    status = os.fstat(descriptor)
    content = os.pread(descriptor, LARGEST_FILE, 0)
    holder = parse_holder(content)
    if holder is None:
        # An empty file is one whose writer ended between creating and writing it.
        return LeaseState("stale" if content.strip() else "none")
    state = judge(holder, this_process(), age=abs(time.time() - status.st_mtime), unlocked=unlocked)
    return LeaseState(state, holder.pid, holder.host, holder.process_start)


def parse_holder(content: bytes) -> Holder | None:
    """The holder that a PID file names; None for an empty file, or one that is no PID file."""
    try:
        document = json.loads(content)
        if isinstance(document, dict):
            known = {key: value for key, value in document.items() if key in Holder.__dataclass_fields__}
            return Holder(**{**known, "pid": int(document["pid"])})
    except (ValueError, TypeError, KeyError):
        pass
    first = content.split(maxsplit=1)[0] if content.split() else b""
    return Holder(pid=int(first)) if first.isdigit() else None


def judge(holder: Holder, here: Holder, *, age: float, unlocked: bool) -> State:
    """Where the holder is, seen from `here`.

    age: seconds since the file was renewed. unlocked: nobody on this kernel has it locked.
    """
    if holder.host is None:
        if process_start(holder.pid) is not None and _looks_like_an_endpoint(holder.pid):
            return "running"
        return "elsewhere" if age < FRESH else "stale"
    if (holder.host, holder.machine) == (here.host, here.machine):
        if holder.boot_id != here.boot_id:
            return "stale"
        if holder.pid_namespace == here.pid_namespace:
            return "running" if _same_start(process_start(holder.pid), holder.process_start) else "stale"
    if unlocked and holder.boot_id == here.boot_id:
        return "stale"  # a container on this machine, whose processes we can't see but whose locks we do
    renewed = holder.kept_every is None or age < max(FRESH, 3 * holder.kept_every)
    return "elsewhere" if renewed else "stale"


def _same_start(actual: int | None, recorded: int | None) -> bool:
    return actual is not None and (recorded is None or actual == recorded)


def _looks_like_an_endpoint(pid: int) -> bool:
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().lower().replace(b"-", b" ").replace(b"_", b" ")
        return b"globus compute" in command
    return False


def _lock(descriptor: int) -> bool | None:
    """True: locked by us now; False: by another; None: this file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _already_running(path: Path, found: LeaseState) -> AlreadyRunning:
    name = path.parent.name
    process = f"process {found.pid}" if found.pid else "another process"
    if found.state == "elsewhere":
        where = f"on the host {found.host}" if found.host else "on another host, perhaps another login node"
        return AlreadyRunning(
            f"The endpoint {name} runs already, as {process} {where}",
            hint=f"Stop it there, or with: globus-compute-endpoint stop --remote {name}. "
            f"If that host is gone for good, remove {path} and start again",
        )
    return AlreadyRunning(
        f"The endpoint {name} runs already, as {process} on this host",
        hint=f"Stop it with: globus-compute-endpoint stop {name}",
    )


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The PID file {path} can't be used: {error.strerror}", hint="Look at the directory's permissions"
    )


def _first_line(path: str) -> str | None:
    with suppress(OSError):
        return Path(path).read_text().split("\n", 1)[0].strip() or None
    return None
