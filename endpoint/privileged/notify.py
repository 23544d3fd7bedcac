"""Tell systemd how the service does: sd_notify(3) in a few lines."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"


class Notifier:
    """Sends states to the service manager; silent where there is none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get(VARIABLE, "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environment.get(WATCHDOG_VARIABLE, "")
        # Twice within each period, as sd_watchdog_enabled(3) advises.
        self.watchdog_s = int(usec) / 2_000_000 if self._address and usec.isdigit() else 0.0

    async def beat(self) -> None:
        """Say that the loop turns, as often as the service manager wants to hear it; until this is cancelled."""
        from asyncio import sleep  # the monitor has no such loop

        while self.watchdog_s:
            self.tell("WATCHDOG=1")
            await sleep(self.watchdog_s)

    def tell(self, state: str) -> None:
        """Send one or more lines such as `READY=1`. It is no failure if nobody takes them."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), self._address)


def without_notifier(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for a process that has nothing to tell the service manager, and nothing to get from it."""
    mine = {VARIABLE, WATCHDOG_VARIABLE, "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
    mine |= {"CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "LOGS_DIRECTORY"}
    return {name: value for name, value in environment.items() if name not in mine}


def is_systemd_here() -> bool:
    """Whether systemd manages this machine: the test of sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")  # noqa: PTH112
