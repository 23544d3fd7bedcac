"""User endpoints that the monitor starts on the manager's behalf, each as its own local user (docs/privileges.md).

A user endpoint here is a record of what the monitor has told: `accepted`, then `running`, at last `ended`; or
`refused`, or `failed`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from endpoint.errors import ExitStatus, Failure, Mender, Stage
from endpoint.manager.commands import Refusal, StartRequest
from endpoint.manager.credentials import encrypted, new_key
from endpoint.manager.local_user import LocalUser
from endpoint.manager.memory import sealed
from endpoint.manager.monitor_link import MonitorGone, MonitorLink
from endpoint.manager.note import Note
from endpoint.manager.order import LARGEST_ORDER, SpawnFailure
from endpoint.manager.spawn import Host, order_for
from endpoint.privileged.documents import LARGEST_CREDENTIALS
from endpoint.privileged.requests import LONGEST_NOTE, LONGEST_TEXT, NAME, VERSION
from endpoint.privileged.steps import failure_from

log = logging.getLogger(__name__)

WELCOME_S = 20.0
OWN_DOING = frozenset({"TOO_MANY_OF_USER", "TOO_OFTEN"})  # refusals that a user can do something about
START_S = 120.0  # PAM modules may be slow, and make home directories


@dataclass(frozen=True)
class Welcome:
    """What the monitor says of itself."""

    pam: bool
    service_name: str
    audit_log: bool
    audit_required: bool
    watchdog_s: float = 0.0  # 0: nobody watches


@dataclass(frozen=True)
class Found:
    """A user endpoint of a former manager."""

    name: str
    user: str
    uid: int
    runs: bool
    note: str = field(repr=False)


@dataclass(eq=False)
class Record:
    """One user endpoint that the monitor knows of, or was asked for. `started` is its PID, or raises why not."""

    name: str
    started: asyncio.Future[int]
    ended: asyncio.Future[int]
    accepted: bool = False
    unsent: Callable[[], None] | None = None  # newer credentials, for when it can be given them


class RemoteCredentials:
    """The credentials of a user endpoint that a keeper holds for it."""

    def __init__(self, launcher: Monitored, name: str, key: str) -> None:
        self.key = key
        self.latest: Mapping[str, Any] | None = None
        self._name = name
        self._launcher = launcher

    def write(self, amqp_creds: Mapping[str, Any]) -> None:
        self.latest = amqp_creds
        self._launcher.renew(self._name, encrypted(self.key, amqp_creds))

    def close(self) -> None:
        """The keeper closes it."""


class MonitoredProcess:
    """A user endpoint below a keeper, which sees to what it leaves behind."""

    def __init__(self, launcher: Monitored, record: Record) -> None:
        self._launcher = launcher
        self._record = record

    @property
    def pid(self) -> int:
        return self._record.started.result()

    @property
    def logfile(self) -> str:
        return "endpoint.log in its own directory"

    async def wait(self) -> int:
        return await asyncio.shield(self._record.ended)

    def terminate(self) -> None:
        self._launcher.signal(self._record, "TERM")

    def kill(self) -> None:
        self._launcher.signal(self._record, "KILL")

    def clean_up(self) -> None:
        """The keeper does."""

    def log_tail(self) -> str:
        return ""  # it is the user's, and not for us to read


class Monitored:
    """The launcher of a manager that has a monitor at `end`."""

    def __init__(self, host: Host, end: socket.socket) -> None:
        self._host = host
        self._records: dict[str, Record] = {}
        self._found: list[Found] = []
        self._adopted: dict[str, Record] = {}  # found, not yet followed
        self._welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._link = MonitorLink(end, self._on_event)

    @property
    def gone(self) -> asyncio.Future[None]:
        """Has a result when there is no monitor any more."""
        return self._link.gone

    async def greet(self) -> tuple[Welcome, list[Found]]:
        """Begin; what the monitor is, and the user endpoints that are there. Raises MonitorGone."""
        self._link.send("hello", version=VERSION)
        await asyncio.wait((self._welcome, self.gone), timeout=WELCOME_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._welcome.done():
            raise MonitorGone("The monitor of this endpoint does not answer", hint="Look at what it has logged")
        return self._welcome.result(), self._found

    def say(self, word: str) -> None:
        """`ready`: the endpoint is connected. `alive`: the loop turns."""
        self._link.send(word)

    def audit(self, **record: Any) -> None:
        """Have a line written to the audit log."""
        told = {name: _short(value) if isinstance(value, str) else value for name, value in record.items()}
        self._link.send("audit", record=told)

    def close(self) -> None:
        """Leave the monitor."""
        self._link.close()

    def credentials(self, name: str, key: str | None = None) -> RemoteCredentials:
        return RemoteCredentials(self, name, key or new_key())

    async def launch(self, request: StartRequest, user: LocalUser, credentials: RemoteCredentials) -> MonitoredProcess:
        document = await asyncio.to_thread(self._document, request, user, credentials.key)
        note = Note.of(request, credentials.key).to_text()
        if len(note) > LONGEST_NOTE:
            raise Refusal("The addresses in a start command are too long", code="COMMAND_TOO_LARGE")
        record = self._records[request.name] = self._record(request.name)
        # Sent when the request is accepted. There may be newer ones by now than those that the document has.
        credentials.write(credentials.latest or request.amqp_creds)
        self._link.send(
            "start",
            sealed("order", document),
            name=request.name,
            user=_short(user.name),
            identity=_short(user.matched_identity or request.requester.effective_identity),
            identity_name=_short(request.requester.username),
            mapped_by=_short(user.mapped_by),
            note=note,
        )
        return await self._started(record)

    async def follow(self, name: str) -> MonitoredProcess:
        return await self._started(self._adopted.pop(name))

    def renew(self, name: str, content: bytes) -> None:
        """Hand newer credentials to a user endpoint, now or as soon as it is accepted."""
        record = self._records.get(name)
        if record is None or record.ended.done():
            return
        if len(content) > LARGEST_CREDENTIALS:
            log.error("Newer credentials of %s are too large to be handed over", name)
            return

        def send() -> None:
            self._link.send("credentials", sealed("credentials", content), name=name)

        if record.accepted:
            send()
        else:
            record.unsent = send

    def disown(self, name: str) -> None:
        """Nobody will follow this one that was found."""
        del self._adopted[name]

    def signal(self, record: Record, word: str) -> None:
        """Signal a user endpoint, if it is there."""
        if record.accepted and not record.ended.done() and not self.gone.done():
            self._link.send("signal", name=record.name, signal=word)

    def _document(self, request: StartRequest, user: LocalUser, key: str) -> bytes:
        if not NAME.fullmatch(request.name):
            raise Refusal("The name of a user endpoint has characters that it can't have", code="MALFORMED_COMMAND")
        document = order_for(self._host, request, user, enckey=key).to_json()
        if len(document) > LARGEST_ORDER:
            raise Refusal("The options of a user endpoint are too large", code="COMMAND_TOO_LARGE")
        return document

    def _record(self, name: str) -> Record:
        loop = asyncio.get_running_loop()
        record = Record(name, loop.create_future(), loop.create_future())
        record.started.add_done_callback(_seen)
        return record

    async def _started(self, record: Record) -> MonitoredProcess:
        done, _ = await asyncio.wait((record.started,), timeout=START_S)
        if not done:
            self.signal(record, "KILL")
            raise SpawnFailure(f"The user endpoint was not started within {START_S:.0f} s", code="START_TOO_SLOW")
        record.started.result()
        return MonitoredProcess(self, record)

    def _on_event(self, event: Mapping[str, Any]) -> None:
        handler = _EVENTS.get(str(event.get("event")))
        try:
            if handler is not None:
                handler(self, event)
        except MonitorGone:  # it is told by `gone`
            return
        except (KeyError, TypeError, ValueError) as error:
            log.error("The monitor's event %s can't be understood: %r", event.get("event"), error)

    def _on_user_endpoint(self, event: Mapping[str, Any]) -> None:
        """One that the monitor has found; later, as an answer to `list`, nothing new."""
        name = str(event["name"])
        if name in self._records:
            return
        record = self._records[name] = self._adopted[name] = self._record(name)
        record.accepted = True
        runs = event["state"] == "running"
        if runs:
            record.started.set_result(int(event["pid"]))
        self._found.append(Found(name, str(event["user"]), int(event["uid"]), runs, str(event["note"])))

    def _on_welcome(self, event: Mapping[str, Any]) -> None:
        if not self._welcome.done():
            self._welcome.set_result(
                Welcome(
                    pam=bool(event["pam"]),
                    service_name=str(event["service_name"]),
                    audit_log=bool(event["audit_log"]),
                    audit_required=bool(event["audit_required"]),
                    watchdog_s=float(event.get("watchdog_s", 0.0)),
                )
            )

    def _on_accepted(self, event: Mapping[str, Any]) -> None:
        record = self._records[str(event["name"])]
        record.accepted = True
        if record.unsent is not None:
            record.unsent()
            record.unsent = None

    def _on_running(self, event: Mapping[str, Any]) -> None:
        record = self._records[str(event["name"])]
        if not record.started.done():
            record.started.set_result(int(event["pid"]))

    def _on_refused(self, event: Mapping[str, Any]) -> None:
        record = self._records.pop(str(event["name"]))
        failure = Failure(
            stage=Stage.POLICY,
            code=str(event["code"]),
            reason=str(event["reason"]),
            mender=Mender.USER if event["code"] in OWN_DOING else Mender.ADMIN,
            detail=str(event["detail"]),
        )
        self._fail(record, failure)
        record.ended.cancel()

    def _on_failed(self, event: Mapping[str, Any]) -> None:
        """That is an end too."""
        record = self._records.pop(str(event["name"]))
        unknown = SpawnFailure(f"The user endpoint could not be started (step {event['step']})")
        self._fail(record, failure_from(event["failure"]) or unknown.failure)
        record.ended.set_result(ExitStatus.FAILED)

    def _on_ended(self, event: Mapping[str, Any]) -> None:
        name = str(event["name"])
        record = self._records.pop(name)
        self._fail(record, SpawnFailure("The user endpoint ended before it was started").failure)
        record.ended.set_result(int(event["status"]))

    @staticmethod
    def _fail(record: Record, failure: Failure) -> None:
        if not record.started.done():
            error = SpawnFailure(failure.reason)
            error.failure = failure
            record.started.set_exception(error)


_EVENTS: Mapping[str, Callable[[Monitored, Mapping[str, Any]], None]] = {
    "user-endpoint": Monitored._on_user_endpoint,
    "welcome": Monitored._on_welcome,
    "accepted": Monitored._on_accepted,
    "refused": Monitored._on_refused,
    "running": Monitored._on_running,
    "failed": Monitored._on_failed,
    "ended": Monitored._on_ended,
}


def _seen(started: asyncio.Future[int]) -> None:
    """A start that nobody waits for any more may fail without asyncio's complaint."""
    if not started.cancelled():
        started.exception()


def _short(text: str) -> str:
    """`text` as a packet may have it: the monitor ends a session with half a character in it."""
    return text.encode(errors="replace")[:LONGEST_TEXT].decode(errors="ignore")
