"""The keeper of one user endpoint: as root, from the policy's word to the closed session.

Forked by the monitor, without exec, so that hundreds of keepers share one set of pages. It belongs to nobody: when the
monitor goes, it stays, and the next monitor finds it in the runtime directory. Everything that can take long happens
here: looking up the account, PAM's modules, the user's processes.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from endpoint.errors import EndpointError, Failure
from endpoint.journal import NAME_VARIABLE, is_journal
from endpoint.privileged import child, lines, linux
from endpoint.privileged.accounts import Account, find_account
from endpoint.privileged.become import Identity
from endpoint.privileged.channel import Channel, ChannelClosed
from endpoint.privileged.descendants import adopt_descendants, end_descendants
from endpoint.privileged.descriptors import put_back
from endpoint.privileged.documents import CredentialStore, opened_again
from endpoint.privileged.notify import is_systemd_here
from endpoint.privileged.pam import Library, PamSession
from endpoint.privileged.policy import Bounds, Policy, Refusal, judge
from endpoint.privileged.scope import enter_scope
from endpoint.privileged.state import Facts, Runtime, boot_id, start_time
from endpoint.privileged.steps import TOLD, Step, StepFailed, fitting
from endpoint.privileged.watch import Outcome, Watch

if TYPE_CHECKING:
    from endpoint.privileged.audit import AuditLog

GO_S = 30.0  # how long the monitor may take to say `go`
LARGEST_FAILURE = 48 * 1024  # bytes in a packet and in the facts
WHERE = "keeper"
AUDIT_REQUIRED = "GLOBUS_COMPUTE_AUDIT_REQUIRED"  # a variable for `prepare`: no task without its line


@dataclass(frozen=True)
class Order:
    """What the manager asked for."""

    name: str
    user: str
    identity: str
    identity_name: str
    mapped_by: str  # the rule or program that led to the user
    note: str
    document: int


@dataclass(frozen=True)
class Settings:
    """What is the same for all keepers of a monitor."""

    endpoint: str
    policy: Policy
    bounds: Bounds
    service_uid: int
    runtime: Runtime
    environment: Mapping[str, str] = field(repr=False)
    library: Library | None  # None: no PAM
    audit: AuditLog | None
    program: Callable[[str], tuple[str, ...]] = child.program
    descriptor_limit: tuple[int, int] | None = None  # what the monitor was given, where it has raised its own


@dataclass(frozen=True)
class _Session:
    """What the user's process gets from PAM."""

    groups: tuple[int, ...]
    limits: child.Limits
    environment: Mapping[str, str]


class Keeper:
    """One keeper; `run` is its life."""

    def __init__(self, order: Order, settings: Settings, connection: socket.socket) -> None:
        self._order = order
        self._settings = settings
        self._channel = Channel(connection)
        self._wakeup = -1
        self._pam: PamSession | None = None
        self._began = time.time()
        self._facts: Facts
        self._account: Account

    def run(self) -> int:
        """Returns the exit status: zero, or that of the step that failed."""
        self._isolate()
        if not self._admitted():
            return Step.POLICY.status
        self._announce()
        outcome = Outcome()
        watch: Watch | None = None
        try:
            session = self._open_session()
            watch = self._start(session)
            outcome = watch.wait()
        except StepFailed as error:
            outcome = Outcome(step=error.step, failure=error.failure)
        except Exception as error:  # noqa: BLE001  # whatever happens, the session is closed and the end is told
            unexpected = StepFailed(Step.FORK, f"{type(error).__name__}: {error}")
            outcome = Outcome(step=Step.FORK, failure=unexpected.failure)
            end_descendants()
        self._close_session()
        self._tell_end(outcome)
        if watch is not None:
            watch.close()
        return outcome.step.status if outcome.step is not None else 0

    # -- before anything is done for the user ----------------------------------------------------------------------

    def _isolate(self) -> None:
        """Keep nothing of the monitor's but its log, its question, and the runtime directory."""
        gc.disable()  # what is not touched stays shared
        os.setsid()
        linux.set_process_name("gce-keeper")
        linux.leave_session_keyring()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1):
            os.dup2(null, number)
        kept = {0, 1, 2, self._channel.fileno(), self._order.document, self._settings.runtime.descriptor}
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            if int(name) not in kept:
                with suppress(OSError, ValueError):
                    os.close(int(name))
        if self._settings.descriptor_limit is not None:
            put_back(self._settings.descriptor_limit)
        self._wakeup, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, _noted)
            signal.siginterrupt(number, False)  # PAM's modules don't expect to be interrupted
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        adopt_descendants()

    def _admitted(self) -> bool:
        """Look the account up and judge it; then the monitor counts. False: it is refused, or nobody waits for it."""
        settings = self._settings
        account = find_account(self._order.user)
        refusal = judge(settings.policy, settings.bounds, account, settings.service_uid)
        if refusal is None and account is not None and account.uid == os.geteuid():
            # A monitor that is not root, but has the capabilities that it needs, gives nobody its own account.
            refusal = Refusal("FORBIDDEN_USER", TOLD[Step.POLICY], f"{account.name} is whom the monitor runs as")
        if account is None or refusal is not None:
            self._channel.send(refused(self._order.name, refusal or Refusal("NO_SUCH_USER", "There is no such user")))
            return False
        self._account = account
        try:
            self._channel.send({"event": "judged", "user": account.name, "uid": account.uid})
            poller = select.poll()  # not `select`, for which the descriptor's number may be too large
            poller.register(self._channel, select.POLLIN)
            return bool(poller.poll(GO_S * 1000)) and self._channel.receive().message.get("request") == "go"
        except ChannelClosed:
            return False

    def _announce(self) -> None:
        """From now on a new monitor finds this keeper."""
        order, account = self._order, self._account
        self._facts = Facts(
            name=order.name,
            user=account.name,
            uid=account.uid,
            identity=order.identity,
            note=order.note,
            keeper=os.getpid(),
            keeper_start=start_time(os.getpid()) or 0,
            boot=boot_id(),
            state="starting",
            started=self._began,
        )
        self._listener = self._settings.runtime.listen(self._facts.socket)
        self._settings.runtime.write(self._facts)

    # -- the session -------------------------------------------------------------------------------------------------

    def _open_session(self) -> _Session:
        """PAM's account check, credentials and session; without PAM, what the account has. Raises StepFailed."""
        own, account, settings = child.read_limits(), self._account, self._settings
        if settings.library is None:
            return _Session(account.groups, own, {})
        self._pam = pam = PamSession(settings.library, settings.policy.pam.service_name, account.name)
        pam.check_account()
        try:
            os.setgroups(account.groups)  # a module of `pam_setcred` may add to these
        except OSError as error:
            raise StepFailed(Step.PAM_CREDENTIALS, f"setgroups {list(account.groups)}: {error}") from error
        pam.establish_credentials()
        pam.open()
        session = _Session(tuple(os.getgroups()), child.read_limits(), pam.environment())
        self._record("session-opened", service=settings.policy.pam.service_name)
        # The session's limits fall on whoever opened it. The user's process gets them; they are not for this one.
        child.restore_limits(own)
        return session

    def _close_session(self) -> None:
        if self._pam is not None:
            wrong = self._pam.close()
            for words in wrong:
                lines.warning(WHERE, words, user_endpoint=self._order.name)
            self._record("session-closed", problem="; ".join(wrong) or None)

    def _start(self, session: _Session) -> Watch:
        """Fork the user's process, and wait for it from then on. Raises StepFailed."""
        order, account, policy = self._order, self._account, self._settings.policy
        if is_systemd_here():
            enter_scope(self._settings.endpoint, order.name, account.uid, own_slice=policy.own_slices)
        credentials = CredentialStore()
        failure, telling = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        tasks, task_lines = self._task_pipe(null)
        descriptors = child.Descriptors(
            document=opened_again(order.document),
            failure=telling,
            credentials=credentials.reader(),
            audit=task_lines,
            null=null,
        )
        environment = child.clean_environment(account.name, account.home, account.shell, self._settings.environment)
        pid, steps = child.start(
            child.Plan(
                argv=self._settings.program(order.name),
                environment={**environment, **session.environment, **self._marks()},
                identity=Identity(account.uid, account.gid, session.groups),
                home=account.home,
                limits=session.limits,
                descriptors=descriptors,
                no_new_privileges=policy.no_new_privileges,
                drop_bounding_set=policy.drop_bounding_set,
            )
        )
        for descriptor in {*descriptors.in_place().values(), order.document}:
            os.close(descriptor)
        self._facts = replace(self._facts, pid=pid)
        watch = Watch(order.name, pid, credentials, policy.end_s, self._on_running)
        watch.add_signals(self._wakeup)
        watch.add_listener(self._listener)
        watch.use_monitor(self._channel)
        watch.add_steps(steps)
        watch.add_failure(failure)
        if tasks is not None:
            tasks.identity = self._identity()
            watch.add_tasks(tasks)
        self._watch = watch
        return watch

    def _task_pipe(self, null: int) -> tuple[Any, int]:
        """The reading end of the pipe for audit lines, and the user's end of it."""
        audit, required = self._settings.audit, self._settings.policy.audit_required
        if audit is None:
            return None, os.dup(null)
        from endpoint.privileged.audit_tasks import TaskPipe, open_task_pipe

        reader, writer = open_task_pipe(required=required)
        return TaskPipe(reader, audit, self._identity(), required=required), writer

    def _marks(self) -> dict[str, str]:
        """What `prepare` is told beside the manager's document, which a manager could have written otherwise."""
        required = self._settings.audit is not None and self._settings.policy.audit_required
        marks = {AUDIT_REQUIRED: "1"} if required else {}
        return marks | ({NAME_VARIABLE: self._settings.endpoint} if is_journal() else {})

    # -- what is told ------------------------------------------------------------------------------------------------

    def _on_running(self, outcome: Outcome) -> None:
        """Also for each monitor that comes later."""
        if self._facts.state != "running":
            self._facts = replace(self._facts, state="running", started=time.time())
            self._settings.runtime.write(self._facts)
            limits = _limits_text(outcome.limits or {})
            self._record("started", identity=self._order.identity, limits=limits, durable=True)
            lines.info(
                WHERE,
                f"{self._order.name} runs with process id {self._facts.pid}; limits: {limits}",
                user=self._account.name,
                user_endpoint=self._order.name,
            )
        self._watch.tell({"event": "running", "pid": self._facts.pid, "started": self._facts.started})

    def _tell_end(self, outcome: Outcome) -> None:
        """Leave the end where this monitor, or the next one, looks for it: nothing is lost in between."""
        if outcome.failure is not None and outcome.step is not None:
            self._tell_failure(outcome.failure, outcome.step)
            end = failed(self._order.name, outcome.step, outcome.failure)
        else:
            status = os.waitstatus_to_exitcode(outcome.status or 0)
            seconds = round(time.time() - self._facts.started, 3)
            self._record("ended", status=status, seconds=seconds, durable=True)
            lines.info(
                WHERE,
                f"{self._order.name} ended with status {status} after {seconds:.0f} s",
                user=self._account.name,
                user_endpoint=self._order.name,
            )
            end = {"event": "ended", "name": self._order.name, "status": status, "seconds": seconds}
        self._settings.runtime.write(replace(self._facts, end=end))

    def _tell_failure(self, failure: Failure, step: Step) -> None:
        lines.failed(WHERE, failure, user=self._account.name, user_endpoint=self._order.name, step=step.value)
        self._record("failed", step=step.value, code=failure.code, reason=failure.reason)

    def _record(self, event: str, *, durable: bool = False, **more: str | int | float | None) -> None:
        if self._settings.audit is not None:
            self._settings.audit.note({"event": event, **self._identity(), **more}, durable=durable)

    def _identity(self) -> dict[str, str | int | None]:
        """Who each audit record is about."""
        return {
            "endpoint": self._settings.endpoint,
            "user_endpoint": self._order.name,
            "uid": self._account.uid,
            "user": self._account.name,
            "pid": self._facts.pid or None,  # there is none before the fork
        }


def refused(name: str, refusal: Refusal) -> dict[str, Any]:
    """The event for a refusal."""
    return {
        "event": "refused",
        "name": name,
        "code": refusal.code,
        "reason": refusal.reason,
        "detail": refusal.detail[:LARGEST_FAILURE],
    }


def failed(name: str, step: Step, failure: Failure) -> dict[str, Any]:
    """The event for a start that failed."""
    return {"event": "failed", "name": name, "step": step.value, "failure": fitting(failure, LARGEST_FAILURE)}


def _limits_text(limits: child.Limits) -> str:
    shown = {value: "unlimited" if value == -1 else str(value) for pair in limits.values() for value in pair}
    return " ".join(f"{name}={shown[soft]}/{shown[hard]}" for name, (soft, hard) in sorted(limits.items()))


def _noted(number: int, frame: object) -> None:
    """The wakeup descriptor has it."""


def keep(order: Order, settings: Settings, connection: socket.socket) -> int:
    """Be the keeper for `order`; returns the exit status. For a process that was forked for this."""
    try:
        return Keeper(order, settings, connection).run()
    except EndpointError as error:
        lines.failed(WHERE, error.failure, user_endpoint=order.name)
    except Exception as error:  # noqa: BLE001  # the last line before the process ends
        lines.error(WHERE, f"This is a fault of the program: {type(error).__name__}: {error}", user_endpoint=order.name)
    return Step.FORK.status
