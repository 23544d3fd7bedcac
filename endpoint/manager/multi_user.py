"""The manager below a monitor: user endpoints of many users, which outlive it.

The same manager as an unprivileged one, with another launcher (the monitor), another policy (the identity mapping),
and with what a former manager has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import pwd
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from endpoint.config.model import ManagerConfig
from endpoint.config.paths import CONFIG
from endpoint.errors import ConfigError, EndpointBlocked, ExitStatus
from endpoint.manager.commands import Refusal
from endpoint.manager.compute_service import ComputeService
from endpoint.manager.identity import Mapped
from endpoint.manager.local_user import LocalUser
from endpoint.manager.monitor_link import MonitorGone
from endpoint.manager.monitored import Found, Monitored, Welcome
from endpoint.manager.note import Note
from endpoint.manager.registration import register
from endpoint.manager.service import STOP_SIGNALS, Manager
from endpoint.manager.spawn import Host
from endpoint.wire.queues import Registration

log = logging.getLogger(__name__)

LONGEST_AUDITED = 500  # characters of a reason
ALIVE_S = 5.0  # how often the monitor hears that this loop turns


async def run_multi_user_manager(
    endpoint_dir: Path,
    config: ManagerConfig,
    registration: Registration,
    *,
    ready: Callable[[], None],
    monitor: socket.socket,
    service: ComputeService | None = None,
) -> ExitStatus:
    """As `service.run_manager`, with the monitor at the other end of `monitor`.

    Also raises ConfigError when configuration and policy contradict each other, and MonitorGone.
    """
    path = config.identity_mapping_config_path
    if path is None:
        raise AssertionError("such a configuration was refused before")
    known = service if service is not None else await asyncio.to_thread(ComputeService.of, config, endpoint_dir)
    host = Host(endpoint_dir, config, dict(os.environ))
    monitored = Monitored(host, monitor)
    try:
        welcome, found = await monitored.greet()
        agree(config, welcome, endpoint_dir / CONFIG)
        policy = Mapped(path, registration.endpoint_id, allow_same_user=config.force_mu_allow_same_user)
        async with _working(policy):
            register_again = _registrar(host, registration.endpoint_id, known)
            manager = MultiUserManager(host, policy, register_again, monitored)
            manager.adopt(found)
            period_s = min(ALIVE_S, welcome.watchdog_s / 3) if welcome.watchdog_s else ALIVE_S
            return await manager.serve(registration, ready, period_s)
    finally:
        monitored.close()


@contextlib.asynccontextmanager
async def _working(policy: Mapped) -> AsyncIterator[None]:
    """The mapping is ready, and follows its file."""
    await policy.start()
    watching = asyncio.create_task(policy.watch())
    try:
        yield
    finally:
        watching.cancel()
        await policy.close()


def _registrar(
    host: Host, endpoint_id: str, service: ComputeService
) -> Callable[[], Coroutine[Any, Any, Registration]]:
    async def register_again() -> Registration:
        again = functools.partial(register, service=service, multi_user=True)
        return (await asyncio.to_thread(again, host.endpoint_dir, host.config, endpoint_id))[1]

    return register_again


class MultiUserManager(Manager):
    """The manager's loop with a monitor beside it: it hears that we live, and without it we end."""

    def __init__(
        self,
        host: Host,
        policy: Mapped,
        register_again: Callable[[], Coroutine[Any, Any, Registration]],
        monitored: Monitored,
    ) -> None:
        self._monitored = monitored
        self._mapping = policy
        self._reloading: asyncio.Task[None] | None = None
        self._monitor_pid = os.getppid()
        on_signal: dict[signal.Signals, Callable[[], None]] = {
            number: functools.partial(self._on_stop_signal, number) for number in STOP_SIGNALS
        }
        on_signal[signal.SIGHUP] = self._reload
        on_signal[signal.SIGUSR2] = lambda: self.stop("got SIGUSR2", leave_users=True)
        super().__init__(host, policy, register_again, monitored, on_signal=on_signal)
        monitored.gone.add_done_callback(lambda _: self._on_gone())

    def adopt(self, found: Sequence[Found]) -> None:
        """Go on with the user endpoints of a former manager."""
        for one in found:
            try:
                note = Note.from_text(one.note)
                request = note.request(one.name, self._config.amqp_port)
            except ValueError as error:
                log.error("The user endpoint %s of a former manager goes on by itself: %s", one.name, error)
                self._monitored.disown(one.name)
                continue
            self.supervisor.adopt(request, _account(one), note.enckey, runs=one.runs)

    async def serve(self, registration: Registration, ready: Callable[[], None], period_s: float) -> ExitStatus:
        """As `run`; tells the monitor every `period_s` that the loop turns. Raises MonitorGone too."""

        def tell_ready() -> None:
            self._monitored.say("ready")
            ready()

        beating = asyncio.create_task(_beat(self._monitored, period_s))
        try:
            status = await self.run(registration, tell_ready)
        finally:
            beating.cancel()
        if self._monitored.gone.done():
            raise MonitorGone("The monitor of this endpoint has ended", hint="Start the endpoint again")
        return status

    async def _serve(self, registration: Registration) -> None:
        try:
            await super()._serve(registration)
        except EndpointBlocked:  # that is a stop by way of the service
            raise
        except Exception:
            self._leave_users = True  # whatever is wrong with the manager, no task should suffer from it
            raise

    def _on_refused(self, refusal: Refusal) -> None:
        """What the monitor is not even asked for is for its audit log all the same."""
        failure, recipient = refusal.failure, refusal.recipient
        with contextlib.suppress(MonitorGone):
            self._monitored.audit(
                event="refused",
                user_endpoint=recipient.endpoint_id if recipient else None,
                code=failure.code,
                reason=failure.reason[:LONGEST_AUDITED],
            )

    async def _shut_down(self) -> None:
        self._leave_users |= self._is_alone()
        await super()._shut_down()

    def _is_alone(self) -> bool:
        """Whether the monitor is gone. Its end also is a signal to us, from the kernel, which may be here first."""
        return self._monitored.gone.done() or os.getppid() != self._monitor_pid

    def _on_stop_signal(self, number: signal.Signals) -> None:
        self.stop(f"got {number.name}", leave_users=self._is_alone())

    def _on_gone(self) -> None:
        if not self._stopping.is_set():
            self.stop("there is no monitor", leave_users=True)

    def _reload(self) -> None:
        log.info("Got SIGHUP: the identity mapping is read again")
        self._reloading = asyncio.create_task(self._mapping.reload())


async def _beat(monitored: Monitored, period_s: float) -> None:
    with contextlib.suppress(MonitorGone):  # that is seen elsewhere
        while True:
            monitored.say("alive")
            await asyncio.sleep(period_s)


def agree(config: ManagerConfig, welcome: Welcome, path: Path) -> None:
    """Refuse to start where `config.yaml` and the monitor's policy say different things; raises ConfigError."""
    _agree_on_pam(config, welcome, path)
    if config.audit_log_path is not None and not welcome.audit_log:
        raise ConfigError(
            f"{path} names an audit log, and the policy of this endpoint has none",
            hint="The log of an endpoint of several users is root's: set `audit_log` in the policy, and remove "
            "audit_log_path",
            code="POLICY_DIFFERS",
        )
    if config.high_assurance and welcome.audit_log and not welcome.audit_required:
        raise ConfigError(
            f"{path} asks for high assurance, and the policy of this endpoint lets work go on without its audit log",
            hint="Set `audit_required` in the policy",
            code="POLICY_DIFFERS",
        )
    if config.audit_log_path is not None:
        log.warning("audit_log_path has no meaning here: the audit log is the one that the monitor's policy names")
    if config.force_mu_allow_same_user:
        log.warning("force_mu_allow_same_user has no effect here: the monitor gives nobody the service user's account")


def _agree_on_pam(config: ManagerConfig, welcome: Welcome, path: Path) -> None:
    configured = config.pam
    if configured.enable == welcome.pam and (not welcome.pam or configured.service_name == welcome.service_name):
        return
    wanted = f"pam: {{enable: true, service_name: {welcome.service_name}}}" if welcome.pam else "pam: {enable: false}"
    said = f"the PAM service {configured.service_name}" if configured.enable else "no PAM"
    raise ConfigError(
        f"{path} asks for {said}, and the policy of this endpoint says otherwise",
        hint=f"Write into config.yaml `{wanted}`, or change `pam` in the policy, which is what counts",
        code="POLICY_DIFFERS",
    )


def _account(found: Found) -> LocalUser:
    """The local user as the monitor knows it: the account may be gone by now."""
    try:
        entry = pwd.getpwuid(found.uid)
    except KeyError:
        return LocalUser(found.user, found.uid, gid=-1, home=Path("/"))
    return LocalUser(found.user, found.uid, entry.pw_gid, Path(entry.pw_dir))
