"""The monitor's table of keepers: starts them, finds those of an earlier monitor, counts, and tells the manager.

A user endpoint's last event (`failed` or `ended`) is always read from the runtime directory, once its keeper is gone:
so it is told once, whether a monitor was there at that moment or not.
"""

from __future__ import annotations

import enum
import os
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from endpoint.errors import EndpointError
from endpoint.privileged import lines
from endpoint.privileged.channel import Channel, Packet, pair
from endpoint.privileged.documents import LARGEST_CREDENTIALS, check_document
from endpoint.privileged.keeper import Order, Settings, failed, keep, refused
from endpoint.privileged.policy import Refusal, StartRate
from endpoint.privileged.state import Facts
from endpoint.privileged.steps import TOLD, Step, StepFailed

STUCK_S = 5.0  # a keeper that should end, and is busy with PAM, is ended after this
WHERE = "monitor"

Tell = Callable[[Mapping[str, Any]], None]


class State(str, enum.Enum):
    """How far a user endpoint is; `STARTING` and `RUNNING` are what the manager hears."""

    JUDGING = "judging"
    STARTING = "starting"
    RUNNING = "running"


@dataclass
class Kept:
    """One line of the table."""

    name: str
    user: str
    uid: int
    identity: str
    identity_name: str
    mapped_by: str
    note: str
    keeper: int
    state: State
    channel: Channel | None = None
    pid: int = 0
    started: float = 0.0
    kill_at: float | None = None
    handle: int = -1  # a pidfd of the keeper, where the kernel has them

    def event(self) -> dict[str, Any]:
        """What the manager hears of it."""
        return {
            "event": "user-endpoint",
            "name": self.name,
            "user": self.user,
            "uid": self.uid,
            "pid": self.pid,
            "started": self.started,
            "state": self.state.value,
            "note": self.note,
        }


class Keepers:
    """The table. `tell` sends an event to the manager; `selector` is the monitor's."""

    def __init__(self, settings: Settings, selector: selectors.BaseSelector, tell: Tell) -> None:
        self._settings = settings
        self._selector = selector
        self._tell = tell
        self._kept: dict[str, Kept] = {}
        self._rate = StartRate(settings.policy.starts_per_minute_per_user)

    def __len__(self) -> int:
        return len(self._kept)

    # -- those of an earlier monitor -----------------------------------------------------------------------------------

    def adopt(self) -> list[tuple[Kept, Facts]]:
        """Find what an earlier monitor has left, and tell the manager; returns those whose end is still to be told."""
        gone: list[tuple[Kept, Facts]] = []
        for facts in self._settings.runtime.all():
            kept = Kept(
                name=facts.name,
                user=facts.user,
                uid=facts.uid,
                identity=facts.identity,
                identity_name="",
                mapped_by="",
                note=facts.note,
                keeper=facts.keeper,
                state=State(facts.state),
                pid=facts.pid if facts.state == State.RUNNING.value else 0,
                started=facts.started,
            )
            if facts.end is None and facts.is_alive() and self._connect(kept, facts):
                self._kept[facts.name] = kept
            else:
                gone.append((kept, facts))
            self._tell(kept.event())
        if self._kept:
            lines.info(WHERE, f"{len(self._kept)} user endpoints of an earlier monitor are still there")
        return gone

    def tell_gone(self, gone: list[tuple[Kept, Facts]]) -> None:
        """Tell how those ended that `adopt` did not find alive."""
        for kept, facts in gone:
            self._tell_end(kept, self._settings.runtime.read(kept.name) or facts)

    def _connect(self, kept: Kept, facts: Facts) -> bool:
        try:
            channel = Channel(self._settings.runtime.connect(facts.socket))
        except OSError:
            return False
        if channel.peer_uid() != os.geteuid():
            channel.close()
            return False
        self._listen(kept, channel)
        return True

    # -- what the manager asks -------------------------------------------------------------------------------------

    def start(self, order: Order) -> None:
        """Fork a keeper for `order`, or refuse. The document stays the caller's."""
        refusal = self._refusal(order)
        if refusal is not None:
            self._tell_refusal(_judging(order), refused(order.name, refusal))
            return
        try:
            own, its = pair()
        except OSError as error:  # there are no descriptors left
            self._cannot_start(order, error)
            return
        try:
            pid = os.fork()
        except OSError as error:
            own.close()
            its.close()
            self._cannot_start(order, error)
            return
        if pid == 0:
            status = Step.FORK.status
            try:
                status = keep(order, self._settings, its)
            finally:
                os._exit(status)
        its.close()
        kept = _judging(order, pid)
        self._kept[order.name] = kept
        self._listen(kept, Channel(own))

    def _cannot_start(self, order: Order, error: OSError) -> None:
        refusal = Refusal("CANNOT_START", TOLD[Step.FORK], str(error))
        self._tell_refusal(_judging(order), refused(order.name, refusal))

    def _refusal(self, order: Order) -> Refusal | None:
        """What can be said without the user database. Pure but for the audit log."""
        policy = self._settings.policy
        if order.name in self._kept:
            return Refusal("NAME_IN_USE", "This user endpoint is there already", order.name)
        if len(self._kept) >= policy.max_user_endpoints:
            detail = f"max_user_endpoints is {policy.max_user_endpoints}"
            return Refusal("TOO_MANY", "This endpoint has as many user endpoints as it may have", detail)
        if order.user in ("root", policy.service_user):
            return Refusal("FORBIDDEN_USER", TOLD[Step.POLICY], f"Nobody may have a user endpoint of {order.user}")
        if order.user in policy.forbidden_users:
            return Refusal("FORBIDDEN_USER", TOLD[Step.POLICY], f"{order.user} is in forbidden_users")
        return None

    def list(self) -> None:
        """Tell the manager about each."""
        for kept in self._kept.values():
            if kept.state is not State.JUDGING:
                self._tell(kept.event())

    def signal(self, name: str, word: str) -> None:
        """Pass a signal on. One that has just ended is no mistake of the manager's."""
        kept = self._kept.get(name)
        if kept is None:
            return
        self._ask(kept, {"request": "signal", "signal": word})
        if word == "KILL" and kept.state is not State.RUNNING and kept.kill_at is None:
            kept.kill_at = time.monotonic() + STUCK_S

    def credentials(self, name: str, descriptor: int) -> None:
        """Pass new credentials on; raises BadRequest for a descriptor that is no sealed memory file."""
        check_document(descriptor, LARGEST_CREDENTIALS)
        if (kept := self._kept.get(name)) is not None:
            self._ask(kept, {"request": "credentials"}, (descriptor,))

    def _ask(self, kept: Kept, message: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """A keeper that is busy reads it later; one that has not read for long does without."""
        if kept.channel is not None:
            try:
                kept.channel.send(message, descriptors)
            except BlockingIOError:
                lines.warning(WHERE, "The keeper takes nothing at the moment", user_endpoint=kept.name)
            except EndpointError:
                pass  # it is ending; the loop will see that

    # -- what keepers tell -------------------------------------------------------------------------------------------

    def _listen(self, kept: Kept, channel: Channel) -> None:
        kept.channel = channel
        if kept.handle < 0:
            with suppress(OSError):  # without it, a keeper that is stuck stays
                kept.handle = os.pidfd_open(kept.keeper)
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._from_keeper(kept))

    def _from_keeper(self, kept: Kept) -> None:
        channel = kept.channel
        if channel is None:
            return
        try:
            packet = channel.receive()
        except BlockingIOError:
            return
        except EndpointError:
            self._keeper_gone(kept)
            return
        packet.close()
        self._heard(kept, packet)

    def _heard(self, kept: Kept, packet: Packet) -> None:
        event = packet.message.get("event")
        if event == "judged" and kept.state is State.JUDGING:
            self._judged(kept, str(packet.message["user"]), int(packet.message["uid"]))
        elif event == "refused" and kept.state is State.JUDGING:
            self._refused(kept, packet.message)
        elif event == "running" and kept.state is not State.RUNNING:
            kept.state, kept.kill_at = State.RUNNING, None
            kept.pid, kept.started = int(packet.message["pid"]), float(packet.message["started"])
            self._tell({"event": "running", "name": kept.name, "pid": kept.pid, "started": kept.started})

    def _judged(self, kept: Kept, user: str, uid: int) -> None:
        """The account is good; now count."""
        policy = self._settings.policy
        uids = Counter(other.uid for other in self._kept.values())
        refusal = None
        if uids[uid] >= policy.max_user_endpoints_per_user:
            detail = f"{user} has {uids[uid]}; max_user_endpoints_per_user is {policy.max_user_endpoints_per_user}"
            refusal = Refusal("TOO_MANY_OF_USER", "You have as many user endpoints here as you may have", detail)
        elif not self._rate.allows(uid, time.monotonic()):
            detail = f"{user}; starts_per_minute_per_user is {policy.starts_per_minute_per_user}"
            refusal = Refusal("TOO_OFTEN", "You start user endpoints too often: try again in a minute", detail)
        elif (unwritten := self._record("start", replace(kept, user=user, uid=uid))) is not None:
            refusal = Refusal("NO_AUDIT", "This endpoint can't start anything at the moment", unwritten)
        if refusal is not None:
            self._refused(kept, refused(kept.name, refusal))
            return
        kept.user, kept.uid, kept.state = user, uid, State.STARTING
        self._ask(kept, {"request": "go"})
        self._tell({"event": "accepted", "name": kept.name})

    def _refused(self, kept: Kept, event: Mapping[str, Any]) -> None:
        """Take it off the table; a keeper that hears no `go` ends."""
        self._drop(kept)
        self._tell_refusal(kept, event)

    def _tell_refusal(self, kept: Kept, event: Mapping[str, Any]) -> None:
        code, detail = str(event["code"]), str(event["detail"])
        self._record("refused", kept, code=code, detail=detail)
        lines.warning(
            WHERE,
            f"No user endpoint for {kept.user} ({kept.identity_name or kept.identity}): {event['reason']}. {detail}",
            user_endpoint=kept.name,
            code=code,
        )
        self._tell(event)

    def _record(self, event: str, kept: Kept, **more: str) -> str | None:
        """Write to the audit log; returns why that failed, where nothing may go on without it."""
        settings = self._settings
        if settings.audit is None:
            return "audit_required is set, and audit_log is not" if settings.policy.audit_required else None
        record = {
            "event": event,
            "endpoint": settings.endpoint,
            "user_endpoint": kept.name,
            "uid": kept.uid if kept.uid >= 0 else None,
            "user": kept.user,
            "identity": kept.identity,
            "identity_name": kept.identity_name,
            "mapped_by": kept.mapped_by or None,
            **more,
        }
        durable = event == "start"  # somebody who is refused often must not have us wait for the disk as often
        if not settings.policy.audit_required:
            settings.audit.note(record, durable=durable)
            return None
        try:
            settings.audit.append(record, durable=durable)
        except EndpointError as error:
            return error.failure.for_admin()
        return None

    # -- the end -------------------------------------------------------------------------------------------------------

    def _drop(self, kept: Kept) -> None:
        self._kept.pop(kept.name, None)
        if kept.channel is not None:
            self._selector.unregister(kept.channel)
            kept.channel.close()
            kept.channel = None
        if kept.handle >= 0:
            os.close(kept.handle)
            kept.handle = -1

    def _keeper_gone(self, kept: Kept) -> None:
        """The connection ended: with the keeper, as a rule."""
        self._drop(kept)
        if kept.state is State.JUDGING:
            words = refused(kept.name, Refusal("CANNOT_START", TOLD[Step.FORK], "its keeper ended"))
            self._tell_refusal(kept, words)
            return
        facts = self._settings.runtime.read(kept.name)
        if facts is not None and facts.end is None and facts.is_alive() and self._connect(kept, facts):
            self._kept[kept.name] = kept
            return
        self._tell_end(kept, facts)

    def _tell_end(self, kept: Kept, facts: Facts | None) -> None:
        """Tell the manager the last event, and forget the user endpoint."""
        if facts is not None and facts.end is not None:
            end = facts.end
        elif kept.state is State.RUNNING:
            self._complain(kept)
            seconds = round(max(0.0, time.time() - kept.started), 3)
            end = {"event": "ended", "name": kept.name, "status": -int(signal.SIGKILL), "seconds": seconds}
        else:
            self._complain(kept)
            end = failed(kept.name, Step.FORK, StepFailed(Step.FORK, "its keeper ended").failure)
        if facts is not None:
            self._settings.runtime.forget(facts)
        self._tell(end)

    def _complain(self, kept: Kept) -> None:
        lines.error(
            WHERE,
            f"The keeper with process id {kept.keeper} is gone without a word: it was killed, or the machine was "
            "started anew. Its PAM session was not closed",
            user=kept.user,
            user_endpoint=kept.name,
        )

    @property
    def deadline(self) -> float | None:
        """When `end_stuck` is to be called."""
        return min((kept.kill_at for kept in self._kept.values() if kept.kill_at is not None), default=None)

    def end_stuck(self) -> None:
        """End keepers that were to end long ago and are still busy with PAM."""
        now = time.monotonic()
        for kept in [kept for kept in self._kept.values() if kept.kill_at is not None and kept.kill_at <= now]:
            kept.kill_at = None
            if kept.handle >= 0:
                lines.error(WHERE, "The keeper does not come to an end: it is killed", user_endpoint=kept.name)
                with suppress(OSError):
                    signal.pidfd_send_signal(kept.handle, signal.SIGKILL)


def _judging(order: Order, keeper: int = 0) -> Kept:
    return Kept(
        name=order.name,
        user=order.user,
        uid=-1,
        identity=order.identity,
        identity_name=order.identity_name,
        mapped_by=order.mapped_by,
        note=order.note,
        keeper=keeper,
        state=State.JUDGING,
        started=time.time(),
    )
