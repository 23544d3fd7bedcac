"""What is known about each user endpoint in the runtime directory, for the monitor that comes next.

`RUNTIME/NAME/` is the monitor's own (mode 0700). In it, one file for each keeper with its facts, in which the keeper
also leaves how the user endpoint ended; and the keeper's socket. A process is known by its id, its start time and the
machine's boot: an id alone may be somebody else's by now.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint.errors import AlreadyRunning, ConfigError
from endpoint.privileged import linux
from endpoint.privileged.requests import NAME

LOCK = "monitor.lock"
SUFFIX = ".json"
LARGEST_FILE = 256 * 1024  # bytes
MOST_KEEPERS = 10_000
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Facts:
    """One keeper and its user endpoint. `end` is the last event, once there is one."""

    name: str
    user: str
    uid: int
    identity: str
    note: str
    keeper: int  # process id
    keeper_start: int  # in clock ticks since the boot
    boot: str
    state: str  # starting, running
    pid: int = 0  # of the user endpoint's process; 0: there is none yet
    started: float = 0.0  # seconds since the epoch
    end: dict[str, Any] | None = None

    @property
    def socket(self) -> str:
        """The name of the keeper's socket. Names of user endpoints are too long for an address."""
        return f"{self.keeper}.sock"

    def is_alive(self) -> bool:
        """Whether the keeper's process is still there."""
        return self.boot == boot_id() and start_time(self.keeper) == self.keeper_start


class Runtime:
    """The runtime directory of one endpoint, held by a descriptor."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def open(cls, base: Path, name: str) -> Runtime:
        """Make what is missing of it; raises ConfigError where it is, or may become, somebody else's."""
        path = base / name
        try:
            base.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _not_usable(path, str(error)) from error
        own, above = os.fstat(descriptor), base.stat()
        if own.st_uid != os.geteuid() or own.st_mode & 0o077:
            raise _not_usable(path, "it is not ours alone")
        if above.st_uid not in (0, os.geteuid()) or above.st_mode & _WRITABLE_BY_OTHERS:
            raise _not_usable(base, "others can write it")
        return cls(path, descriptor)

    def lock(self, directory: Path, service_uid: int) -> int:
        """Be this endpoint's one monitor for as long as the returned descriptor is open.

        directory, service_uid: what the endpoint is, beside its name; what another one of that name has left is not
        for this one, whose manager would get the notes of its user endpoints. Raises AlreadyRunning or ConfigError.
        """
        descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise AlreadyRunning(f"Another monitor runs this endpoint: it holds {self.path / LOCK}") from error
        own = f"{service_uid} {directory}".encode()
        before = os.pread(descriptor, LARGEST_FILE, 0)
        if before and before != own and self.all():
            os.close(descriptor)
            other = before.decode(errors="replace").partition(" ")[2]
            raise _not_usable(self.path, f"it has user endpoints of {other}, which has the same name")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, own, 0)
        return descriptor

    def write(self, facts: Facts) -> None:
        """Put the facts in place of older ones; raises OSError."""
        target, temporary = facts.name + SUFFIX, f".{facts.keeper}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self.descriptor)
        try:
            _write_all(descriptor, json.dumps(vars(facts)).encode("ascii"))
        finally:
            os.close(descriptor)
        os.rename(temporary, target, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def read(self, name: str) -> Facts | None:
        """The facts of one user endpoint; None where there are none that can be read."""
        try:
            descriptor = os.open(name + SUFFIX, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.descriptor)
            with os.fdopen(descriptor, "rb") as stream:
                data = json.loads(stream.read(LARGEST_FILE))
            found = Facts(**data)
        except (OSError, ValueError, TypeError):
            return None
        return found if found.name == name else None

    def all(self) -> list[Facts]:
        """The facts of every user endpoint that left some, in the order of their names."""
        names = sorted(entry[: -len(SUFFIX)] for entry in os.listdir(self.descriptor) if entry.endswith(SUFFIX))  # noqa: PTH208
        found = (self.read(name) for name in names[:MOST_KEEPERS] if NAME.fullmatch(name))
        return [facts for facts in found if facts is not None]

    def forget(self, facts: Facts) -> None:
        """Remove what a keeper left."""
        for name in (facts.name + SUFFIX, facts.socket):
            with suppress(OSError):
                os.unlink(name, dir_fd=self.descriptor)

    def listen(self, name: str) -> socket.socket:
        """A socket called `name` in the directory; raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.bind(self._address(name))
        made.listen(4)
        made.setblocking(False)
        return made

    def connect(self, name: str) -> socket.socket:
        """A connection to the socket called `name`; raises OSError. Never waits."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.setblocking(False)
        try:
            made.connect(self._address(name))
        except OSError:
            made.close()
            raise
        return made

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self.descriptor}/{name}"


def boot_id() -> str:
    """What tells this boot of the machine from others; empty where the kernel doesn't say."""
    return (linux.proc_file("/proc/sys/kernel/random/boot_id") or b"").decode("ascii").strip()


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None where it is gone, or has ended."""
    raw = linux.proc_file(f"/proc/{pid}/stat")
    if not raw:
        return None
    fields = raw[raw.rfind(b")") + 2 :].split()  # the name before it can hold anything
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _not_usable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"The runtime directory {path} can't be used: {why}",
        hint="It must belong to root and to this endpoint alone; name another one with runtime_directory in the policy",
        code="BAD_RUNTIME_DIRECTORY",
    )
