"""The manager's session with its monitor: each packet is checked against the table, then its handler runs.

A packet that the table does not have raises out of `readable`, and nothing more of the session is read.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from endpoint.errors import EndpointError
from endpoint.privileged import lines
from endpoint.privileged.channel import Channel, Packet
from endpoint.privileged.documents import check_document
from endpoint.privileged.keeper import Order, Settings
from endpoint.privileged.requests import Phase, checked
from endpoint.privileged.state import Facts

PACKETS_AT_ONCE = 16  # then others have their turn
BURST_REQUESTS = 5_000.0  # that are read at once, after a quiet time
REQUESTS_PER_S = 100.0  # later: nearly each is a line in a log, and a manager must not be able to fill the disk
MANAGER_EVENT = "manager-"  # what the event of each audit record of the manager begins with
RECORD_KEYS_OF_OURS = frozenset({"event", "endpoint", "uid", "user", "pid", "time", "previous", "number"})


class Table(Protocol):
    """What a session needs of the table of keepers: `keepers.Keepers`."""

    def adopt(self) -> list[tuple[Any, Facts]]: ...

    def tell_gone(self, gone: list[tuple[Any, Facts]]) -> None: ...

    def start(self, order: Order) -> None: ...

    def list(self) -> None: ...

    def signal(self, name: str, word: str) -> None: ...

    def credentials(self, name: str, descriptor: int) -> None: ...


class Ended(enum.Enum):
    """How reading stopped."""

    FOR_NOW = enum.auto()
    FOR_GOOD = enum.auto()


class Session:
    """One manager's session. `notify` is told `READY=1` and the like, for the service manager."""

    def __init__(
        self,
        channel: Channel,
        keepers: Table,
        settings: Settings,
        notify: Callable[[str], None],
        watchdog_s: float = 0.0,
    ) -> None:
        self.phase = Phase.GREETING
        self._channel = channel
        self._keepers = keepers
        self._settings = settings
        self._notify = notify
        self._watchdog_s = watchdog_s
        self._left = BURST_REQUESTS
        self._filled = time.monotonic()
        self._handlers: Mapping[str, Callable[..., None]] = {
            "hello": self._hello,
            "start": self._start,
            "signal": lambda packet, name, signal: keepers.signal(name, signal),
            "credentials": lambda packet, name: keepers.credentials(name, packet.descriptors[0]),
            "list": self._list,
            "audit": self._audit,
            "ready": lambda packet: notify("READY=1"),
            "alive": lambda packet: notify("WATCHDOG=1"),
        }

    @property
    def pause_s(self) -> float:
        """How long nothing should be read: the manager asks too much, and has to wait."""
        self._refill()
        return 0.0 if self._left >= 1 else PACKETS_AT_ONCE / REQUESTS_PER_S

    def readable(self) -> Ended:
        """Carry out what the manager has sent, up to a bound. Raises BadPacket or BadRequest: then it is over."""
        self._refill()
        for _ in range(PACKETS_AT_ONCE):
            if self._left < 1:
                return Ended.FOR_NOW
            try:
                packet = self._channel.receive()
            except BlockingIOError:
                return Ended.FOR_NOW
            except EndpointError as error:
                if error.code == "CHANNEL_CLOSED":
                    return Ended.FOR_GOOD
                raise
            self._left -= 1
            try:
                request, fields = checked(packet, self.phase)
                self._handlers[request.handler](packet, **fields)
            finally:
                packet.close()
        return Ended.FOR_NOW

    def _refill(self) -> None:
        now = time.monotonic()
        self._left = min(BURST_REQUESTS, self._left + (now - self._filled) * REQUESTS_PER_S)
        self._filled = now

    def _hello(self, packet: Packet, version: int) -> None:
        gone = self._keepers.adopt()
        policy = self._settings.policy
        self._channel.post(
            {
                "event": "welcome",
                "pam": policy.pam.enable,
                "service_name": policy.pam.service_name,
                "audit_log": self._settings.audit is not None,
                "audit_required": policy.audit_required,
                "watchdog_s": self._watchdog_s,
            }
        )
        self.phase = Phase.OPEN
        self._keepers.tell_gone(gone)

    def _start(self, packet: Packet, **fields: str) -> None:
        check_document(packet.descriptors[0])
        self._keepers.start(Order(**fields, document=packet.descriptors[0]))

    def _list(self, packet: Packet) -> None:
        self._keepers.list()
        self._channel.post({"event": "listed"})

    def _audit(self, packet: Packet, record: Mapping[str, Any]) -> None:
        """A record of the manager's own. Whose it is shows in its event; it can't say who did something."""
        if self._settings.audit is None:
            return
        told = {key: value for key, value in record.items() if key not in RECORD_KEYS_OF_OURS}
        event = MANAGER_EVENT + str(record.get("event", "note"))
        ours = {
            "event": event,
            "endpoint": self._settings.endpoint,
            "uid": self._settings.service_uid,
            "pid": os.getpid(),
        }
        if not self._settings.audit.note({**told, **ours}):
            lines.warning("monitor", f"A record of the manager is not in the audit log: {event}")
