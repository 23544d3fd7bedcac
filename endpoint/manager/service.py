"""The manager: takes commands from the web service, and has user endpoints started for them.

One story, on one loop: register (the caller did that), connect, say that we are there, follow commands until a signal
comes or the service shuts us out, say goodbye, stop the user endpoints (or leave them to the next manager), close.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from endpoint.amqp.consumer import Delivery
from endpoint.amqp.publisher import PublishRefused
from endpoint.config.model import ManagerConfig
from endpoint.errors import AccessRefused, EndpointError, ExitStatus, NetworkFailure, UnexpectedAnswer
from endpoint.journal import NAME_VARIABLE, is_journal
from endpoint.manager.commands import Refusal, StartRequest, parse_command
from endpoint.manager.compute_service import ComputeService
from endpoint.manager.condition import Condition
from endpoint.manager.following import Following
from endpoint.manager.identity import OwnerOnly, Policy
from endpoint.manager.launcher import Launcher
from endpoint.manager.lines import Lines
from endpoint.manager.local_user import LocalUser, this_user
from endpoint.manager.registration import register
from endpoint.manager.spawn import Host, Local
from endpoint.manager.supervisor import Supervisor
from endpoint.privileged.notify import Notifier, without_notifier
from endpoint.wire.queues import Registration

if TYPE_CHECKING:
    from endpoint.manager.audit import ManagerAudit

log = logging.getLogger(__name__)

SHORTEST_HEARTBEAT_S = 5.0
GOODBYE_S = 5.0
FOLLOWING_S = 5.0  # for commands that are being followed when the manager stops
REGISTRATION_DELAYS_S = (0.0, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 120.0)
# Before registering again: fresh credentials that don't work at once may do so soon. Then somebody should look at it.
REFUSED_PAUSES_S = (0.0, 2.0, 10.0)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

T = TypeVar("T")


async def run_manager(
    endpoint_dir: Path,
    config: ManagerConfig,
    registration: Registration,
    *,
    ready: Callable[[], None],
    service: ComputeService | None = None,
) -> ExitStatus:
    """Run the manager of `endpoint_dir` until a signal stops it.

    registration: the answer that `registration.register` got. ready: called once, when the service can see us.
    service: to register again with, and to ask who the owner is; made from the configuration where it is None.

    Returns OK after a signal. Raises NetworkFailure when the broker can't be reached at the start, EndpointBlocked
    when the service has shut the endpoint out (a remote stop), and other EndpointErrors.
    """
    known = service if service is not None else await asyncio.to_thread(ComputeService.of, config, endpoint_dir)
    owner = await asyncio.to_thread(known.owner_identities)
    log.info("User endpoints are started for these identities: %s", ", ".join(sorted(owner)))

    async def register_again() -> Registration:
        _, fresh = await asyncio.to_thread(register, endpoint_dir, config, registration.endpoint_id, service=known)
        return fresh

    notifier = Notifier(os.environ)
    host, user = Host(endpoint_dir, config, _for_users(endpoint_dir.name, os.environ)), this_user()

    def tell_ready() -> None:
        notifier.tell("READY=1")
        ready()

    with _audited(config, registration.endpoint_id, user) as audit:
        manager = Manager(host, OwnerOnly(owner, user), register_again, Local(host, audit), notify=notifier.tell)
        beating = asyncio.create_task(notifier.beat())
        try:
            return await manager.run(registration, tell_ready)
        finally:
            beating.cancel()


def _for_users(name: str, own: Mapping[str, str]) -> dict[str, str]:
    """The variables of user endpoints: without the service manager's, and whether lines go to the journal."""
    return without_notifier(own) | ({NAME_VARIABLE: name} if is_journal(own) else {})


@contextlib.contextmanager
def _audited(config: ManagerConfig, endpoint_id: str, user: LocalUser) -> Iterator[ManagerAudit | None]:
    """The audit log that the configuration names, while the manager works. Raises AuditFailure."""
    if config.audit_log_path is None:
        yield None
        return
    from endpoint.manager.audit import ManagerAudit

    identity = {"endpoint": endpoint_id, "uid": user.uid, "user": user.name, "pid": os.getpid()}
    audit = ManagerAudit(config.audit_log_path, identity, required=config.high_assurance)
    audit.begin()
    try:
        yield audit
    finally:
        audit.end()


class Manager:
    """The loop of one endpoint. `policy` says who is served; `register_again` gets fresh credentials."""

    def __init__(
        self,
        host: Host,
        policy: Policy,
        register_again: Callable[[], Coroutine[Any, Any, Registration]],
        launcher: Launcher,
        *,
        on_signal: Mapping[signal.Signals, Callable[[], None]] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        """on_signal: signals that mean something else than a stop. notify: tells the service manager how we do."""
        self._config = host.config
        self._policy = policy
        self._register_again = register_again
        self._on_other = on_signal or {}
        self._notify = notify
        self._following = Following()
        self._condition = Condition(host.endpoint_dir, lambda: self.supervisor.facts)
        self.supervisor = Supervisor(
            launcher, grace_s=float(host.config.mu_child_ep_grace_period_s), on_change=self._condition.changed
        )
        self._leave_users = False
        self._period_s = max(SHORTEST_HEARTBEAT_S, float(host.config.heartbeat_period))
        self._stopping = asyncio.Event()
        self._lines: Lines | None = None
        self._ready: Callable[[], None] | None = None
        self._refusals = 0

    async def run(self, registration: Registration, ready: Callable[[], None]) -> ExitStatus:
        """Serve until a signal; see `run_manager`."""
        self._ready = ready
        with self._signals():
            try:
                await self._serve(registration)
            finally:
                await self._shut_down()
        return ExitStatus.OK

    def stop(self, reason: str, *, leave_users: bool = False) -> None:
        """Come to an end; the second time, at once.

        leave_users: user endpoints go on, for the next manager.
        """
        if not self._stopping.is_set():
            log.info("Shutting down: %s", reason)
            self._leave_users = leave_users
            self._stopping.set()
            if self._notify is not None:
                self._notify("STOPPING=1")
            return
        log.warning("Shutting down at once: %s", reason)
        if not self._leave_users:
            self.supervisor.stop()
        self.supervisor.drop_notices()

    async def _serve(self, registration: Registration) -> None:
        """Be connected; when the broker refuses our credentials, ask the service for others."""
        while not self._stopping.is_set():
            try:
                await self._be_connected(registration)
            except AccessRefused as error:
                # Either the credentials were renewed, or the endpoint was stopped remotely: the service knows.
                log.warning("The broker shuts us out: %s", error.failure.for_admin(), extra=error.failure.fields)
                if self._refusals == len(REFUSED_PAUSES_S):
                    raise
                await self._until_stopped(asyncio.sleep(REFUSED_PAUSES_S[self._refusals]))
                self._refusals += 1
                registration = await self._until_stopped(self._fresh_registration()) or registration

    async def _be_connected(self, registration: Registration) -> None:
        """From the connection to the stop; raises why it ended before."""
        lines = Lines(registration, self._on_command)
        try:
            await self._until_stopped(lines.open())
            self._lines = lines
            await self._until_stopped(self._beat(lines))
        except EndpointError:
            self._lines = None
            await lines.close()
            raise

    async def _beat(self, lines: Lines) -> None:
        """Heartbeats for as long as the links live; raises why they don't any more."""
        failed = asyncio.create_task(lines.failed())
        try:
            while not failed.done():
                if await self._beat_once(lines):
                    self._refusals = 0
                    self._tell_ready()
                await asyncio.wait((failed,), timeout=self._period_s)
            await failed
        finally:
            failed.cancel()

    async def _beat_once(self, lines: Lines) -> bool:
        try:
            return await lines.heartbeat(self._period_s, timeout_s=self._period_s)
        except PublishRefused:
            if self._ready is not None:  # never been online: better an exit status than a manager that nobody sees
                raise
            return False

    def _tell_ready(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready()

    async def _fresh_registration(self) -> Registration:
        """Register again; patient with a network that is down, not with a service that says no."""
        last: EndpointError | None = None
        for delay in REGISTRATION_DELAYS_S:
            await asyncio.sleep(delay)
            try:
                registration = await self._register_again()
            except (NetworkFailure, UnexpectedAnswer) as error:
                log.warning("Registering again failed: %s", error.failure.for_admin(), extra=error.failure.fields)
                last = error
            else:
                log.info("Registered again; the broker's credentials are renewed")
                return registration
        if last is None:
            raise AssertionError("there is at least one attempt")
        raise last

    def _on_command(self, delivery: Delivery) -> None:
        """Follow one command, or say why not. It is acknowledged first: what fails once would fail every time."""
        if self._stopping.is_set():
            delivery.reject(requeue=True)
            return
        delivery.ack()
        try:
            request = parse_command(
                delivery.body,
                content_type=delivery.properties.content_type,
                timestamp=delivery.properties.timestamp,
                now=time.time(),
                amqp_port=self._config.amqp_port,
            )
            if not self._following.begin(request.name, lambda: self._follow(request)):
                raise Refusal("The endpoint has too many requests to look at", hint="Try again soon", code="BUSY")
        except Refusal as refusal:
            self._refuse(refusal)

    async def _follow(self, request: StartRequest) -> None:
        try:
            user = await self._policy.admit(request.requester)
            if self._stopping.is_set():
                raise Refusal("The endpoint shuts down", hint="Try again later", code="SHUTTING_DOWN")
            self.supervisor.request(request, user)
        except Refusal as refusal:
            refusal.recipient = request.recipient
            self._refuse(refusal)
        except Exception:
            log.exception("A command is not followed: a fault of the manager")
            fault = Refusal("The endpoint failed while it looked at the request", code="MANAGER_FAULT")
            fault.recipient = request.recipient
            self._refuse(fault)

    def _refuse(self, refusal: Refusal) -> None:
        fields = refusal.failure.fields
        if refusal.recipient is None:
            log.error(
                "A command is not followed, and nobody can be told: %s", refusal.failure.for_admin(), extra=fields
            )
            return
        fields["user_endpoint"] = refusal.recipient.endpoint_id
        log.error("A command is not followed: %s", refusal.failure.for_admin(), extra=fields)
        self._on_refused(refusal)
        self.supervisor.tell(refusal.recipient, refusal.failure)

    def _on_refused(self, refusal: Refusal) -> None:
        """For who writes it down."""

    async def _shut_down(self) -> None:
        """Leave in order: no new work, then goodbye, then the user endpoints, then the line itself."""
        self._stopping.set()
        lines = self._lines
        if lines is not None:
            # Commands that come from now on stay in their queue for the next manager.
            await lines.stop_commands()
            # Before the user endpoints end, which takes a while: the service should send nobody here meanwhile.
            if not await lines.goodbye(timeout_s=GOODBYE_S):
                log.warning("The service could not be told that the endpoint shuts down")
        await self._following.settled(FOLLOWING_S)
        number = len(self.supervisor.children)
        if self._leave_users:
            log.info("Leaving %d user endpoints to the next manager", number)
            self.supervisor.leave()
        elif number:
            log.info("Stopping %d user endpoints", number)
        self.supervisor.stop()
        await self.supervisor.gone()
        if lines is not None:
            await lines.close()
        self._condition.ended()
        log.info("The manager has stopped")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            number: functools.partial(self.stop, f"got {number.name}") for number in STOP_SIGNALS
        }
        handlers |= self._on_other
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    async def _until_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` returns or raises; None when we are to stop first."""
        if self._stopping.is_set():
            work.close()
            return None
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
