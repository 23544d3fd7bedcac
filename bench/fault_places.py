"""Places to run an endpoint in that can be spoilt: a network of its own, a small disk, a clock that jumps.

All of them are taken down when their context ends, whatever happened in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import secrets
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.proxy import Proxy

CLOCK_SOURCE = Path(__file__).with_name("fault_clock.c")
_SECONDS = struct.Struct("=q")
BLOCK = 4096
UNMOUNT_S = 10.0


class PlaceMissing(Exception):
    """This machine can't do what a fault needs; the text says what is missing."""


class _ForwarderAt(Proxy):
    """A forwarder to a loopback port that listens on another of this machine's addresses."""

    def __init__(self, address: str, target_port: int) -> None:
        super().__init__(target_port)
        self._listener.close()
        self._listener = socket.create_server((address, 0))
        self.port = self._listener.getsockname()[1]


class OwnNetwork:
    """A network namespace with one wire to this machine; a context manager.

    Nothing but `target_port` of the loopback can be reached through the wire, at `address`:`port`.
    """

    def __init__(self, target_port: int) -> None:
        self.name = f"fault-{secrets.token_hex(3)}"
        self._outer, self._inner = (f"{self.name}{end}" for end in "oi")
        # 198.18.0.0/15 is set aside for benchmarks (RFC 2544); a /30 of it has two hosts.
        network = random.randrange(0, 2**15)
        base = f"198.{18 + (network >> 14)}.{(network >> 6) & 255}"
        self.address, self._inner_address = (f"{base}.{(network & 63) * 4 + host}" for host in (1, 2))
        self._target_port = target_port
        self._stack = contextlib.ExitStack()
        self.port = 0

    @property
    def prefix(self) -> list[str]:
        """What a command is to be put behind to run in it; it becomes the command, with the same PID."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--"]

    def __enter__(self) -> OwnNetwork:
        _need_root("a network namespace")
        _need_program("ip", "iproute2")
        with self._stack:
            _run("ip", "netns", "add", self.name)
            self._stack.callback(_run, "ip", "netns", "del", self.name)
            _run("ip", "link", "add", self._outer, "type", "veth", "peer", "name", self._inner, "netns", self.name)
            # It would go with the namespace; but that lives on while a dead process's last words can't be delivered.
            self._stack.callback(_run, "ip", "link", "del", self._outer)
            _run("ip", "addr", "add", f"{self.address}/30", "dev", self._outer)
            _run("ip", "link", "set", self._outer, "up")
            self._inside("link", "set", "lo", "up")
            self._inside("addr", "add", f"{self._inner_address}/30", "dev", self._inner)
            self._inside("link", "set", self._inner, "up")
            self.port = self._stack.enter_context(_ForwarderAt(self.address, self._target_port)).port
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def down(self) -> None:
        """From now on nothing gets through, and neither side is told."""
        self._inside("link", "set", self._inner, "down")

    def up(self) -> None:
        self._inside("link", "set", self._inner, "up")

    def _inside(self, *arguments: str) -> None:
        _run("ip", "-n", self.name, *arguments)


@contextlib.contextmanager
def small_disk(directory: Path, size: int) -> Iterator[None]:
    """`directory` as a file system of its own with `size` bytes."""
    _need_root("a file system of its own")
    directory.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(directory))
    try:
        yield
    finally:
        deadline = time.monotonic() + UNMOUNT_S
        while subprocess.run(["umount", str(directory)], capture_output=True).returncode:
            if time.monotonic() > deadline:
                _run("umount", "--lazy", str(directory))  # somebody is in it still; it goes when they do
                break
            time.sleep(0.1)


def fill(file: Path) -> None:
    """Write to `file` until its disk is full."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while True:
            os.write(descriptor, bytes(BLOCK))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)


class JumpingClock:
    """The wall clock of all processes that have `environment`; their other clocks go on as they are."""

    def __init__(self, directory: Path) -> None:
        library = directory / "clock.so"
        self._file = directory / "clock"
        self._file.write_bytes(_SECONDS.pack(0))
        _need_program("cc", "gcc, and libc6-dev with it")
        _run("cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(CLOCK_SOURCE), "-ldl")
        self.environment = {"LD_PRELOAD": str(library), "FAULT_CLOCK": str(self._file)}

    def jump(self, seconds: int) -> None:
        """Put the clock `seconds` before (or, negative, behind) the true time."""
        with self._file.open("r+b") as file:  # in place: the processes have it mapped
            file.write(_SECONDS.pack(seconds))


def _need_root(what: str) -> None:
    if os.geteuid() != 0:
        raise PlaceMissing(f"This fault needs {what}, which only root may make")


def _need_program(name: str, package: str) -> None:
    if shutil.which(name) is None:
        raise PlaceMissing(f"This fault needs the program {name}: install the package {package}")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise PlaceMissing(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
