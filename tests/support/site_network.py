"""A private network for machines: a bridge, this machine at .1, each host in a network namespace of its own.

There is no way out of it: no route to anywhere else, no address translation.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

NAMESPACES = Path("/run/netns")
NUMBERS = range(16, 250)  # of networks 10.77.NUMBER.0/24
PREFIX = "gct-net"


@dataclass(frozen=True)
class Place:
    """Where a machine is to run: its network namespace, and its address there."""

    namespace: str
    address: str


class Network:
    """A context manager. `gateway` is this machine's address in it, which machines reach it by."""

    def __init__(self) -> None:
        self._bridge = ""
        self._number = 0
        self._count = 1
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        remove_left()
        try:
            self._bridge = self._namespace()
            ip("-n", self._bridge, "link", "add", "bridge", "type", "bridge")
            ip("-n", self._bridge, "link", "set", "bridge", "up")
            self._number = self._join_bridge()
            ip("addr", "add", f"{self.gateway}/24", "dev", self._own_link)
            ip("link", "set", self._own_link, "up")
            self._plug("own")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    @property
    def gateway(self) -> str:
        return f"10.77.{self._number}.1"

    @property
    def _own_link(self) -> str:
        return f"gct77-{self._number}"

    def place(self) -> Place:
        """A namespace for one more machine; it is there until the network ends."""
        self._count += 1
        name, address = self._namespace(), f"10.77.{self._number}.{self._count}"
        port = f"port{self._count}"
        ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", self._bridge)
        self._plug(port)
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            ip("-n", name, "link", "set", link, "up")
        return Place(name, address)

    def _namespace(self) -> str:
        name = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
        ip("netns", "add", name)
        self._stack.callback(ip, "netns", "delete", name)
        return name

    def _join_bridge(self) -> int:
        """Put a cable from this machine to the bridge; its name keeps two from having one number."""
        for number in NUMBERS:
            with suppress(AssertionError):
                link = f"gct77-{number}"
                ip("link", "add", link, "type", "veth", "peer", "name", "own", "netns", self._bridge)
                self._stack.callback(ip, "link", "delete", link)  # at once; with its namespace it goes later
                return number
        raise AssertionError(f"no network 10.77.N.0/24 is free, or none can be made here: see `ip link`, {NUMBERS}")

    def _plug(self, port: str) -> None:
        ip("-n", self._bridge, "link", "set", port, "master", "bridge", "up")


def remove_left() -> None:
    """Remove namespaces of processes that were killed before they could."""
    for path in NAMESPACES.glob(f"{PREFIX}-*"):
        if not Path(f"/proc/{path.name.split('-')[2]}").exists():
            with suppress(AssertionError):  # somebody else did it at the same time
                ip("netns", "delete", path.name)


def ip(*words: str) -> str:
    """One command of iproute2; returns what it printed."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout
