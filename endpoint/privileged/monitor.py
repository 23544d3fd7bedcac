"""The monitor of a multi-user endpoint: root, no network, the standard library alone.

    python -I -m endpoint.privileged.monitor NAME --endpoint-dir DIR [--policy FILE] -- ARGUMENTS OF THE MANAGER

It starts the manager as the service user, answers its requests, and ends with it, with its status. Keepers and the user
endpoints under them stay; only the manager asks for their end. One loop waits for everything.
"""

from __future__ import annotations

import contextlib
import gc
import getopt
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from endpoint.errors import ConfigError, EndpointError, ExitStatus, UsageError
from endpoint.privileged import child, descriptors, lines, linux, service
from endpoint.privileged.accounts import Account
from endpoint.privileged.channel import Channel, ChannelClosed, close_all, pair
from endpoint.privileged.keeper import Settings
from endpoint.privileged.keepers import Keepers
from endpoint.privileged.notify import Notifier
from endpoint.privileged.pam import Library
from endpoint.privileged.policy import Bounds, Policy, load_policy
from endpoint.privileged.session import Ended, Session
from endpoint.privileged.state import Runtime

USAGE = "NAME --endpoint-dir DIR [--policy FILE] -- ARGUMENTS OF THE MANAGER"
UMASK = 0o022
LONGEST_NAME = 128
SIGNAL_BASE = 128  # a shell's exit status for a process that a signal ended
WAKEUP_BYTES = 4096
LAST_TURNS = 64
PAM_FOLDERS = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"), Path("/usr/etc/pam.d"))
WHERE = "monitor"

# What the manager gets for a signal to the monitor.
PASSED_ON: Final = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGINT: signal.SIGTERM,
    signal.SIGUSR2: signal.SIGUSR2,
    signal.SIGHUP: signal.SIGHUP,
}

SAID: Final = {
    signal.SIGTERM: "the manager and all user endpoints stop",
    signal.SIGINT: "the manager and all user endpoints stop",
    signal.SIGUSR2: "the manager stops, and user endpoints stay for the next one",
    signal.SIGHUP: "the manager reads the identity mapping again",
}

ManagerCommand = Callable[[int], tuple[str, ...]]
UserCommand = Callable[[str], tuple[str, ...]]


@dataclass(frozen=True)
class Arguments:
    """The monitor's command line."""

    name: str
    endpoint_dir: Path
    policy: Path | None
    manager: tuple[str, ...]

    @classmethod
    def parse(cls, words: Sequence[str]) -> Arguments:
        """Raises UsageError."""
        own, behind = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
        try:
            options, names = getopt.gnu_getopt(list(own), "", ["endpoint-dir=", "policy="])
        except getopt.GetoptError as error:
            raise UsageError(f"{error}", hint=f"The arguments are: {USAGE}") from error
        given = dict(options)
        if len(names) != 1 or "--endpoint-dir" not in given:
            raise UsageError("The monitor needs one name, and --endpoint-dir", hint=f"The arguments are: {USAGE}")
        name, policy = names[0], given.get("--policy")
        if not 0 < len(name) <= LONGEST_NAME or "/" in name or name.startswith(".") or not name.isprintable():
            raise UsageError(f"{name!r} can't be the name of an endpoint")
        directory = Path(given["--endpoint-dir"])
        if not directory.is_absolute() or directory.name != name:
            raise UsageError(f"--endpoint-dir must be an absolute path that ends in {name}")
        return cls(name, directory, Path(policy) if policy else None, tuple(behind))


class Monitor:
    """From the start of the manager to its end."""

    def __init__(self, settings: Settings, account: Account, notifier: Notifier) -> None:
        self._settings = settings
        self._account = account
        self._notifier = notifier
        self._selector = selectors.DefaultSelector()
        self._keepers = Keepers(settings, self._selector, self._tell)
        self._manager = 0
        self._status: int | None = None  # of the manager, as wait(2) has it
        self._manager_left = False
        self._told_number = 0
        self._channel: Channel
        self._session: Session

    def run(self, manager: ManagerCommand, inherited: list[int]) -> int:
        """Start the manager, and serve it until it ends; returns the monitor's exit status."""
        self._catch_signals()
        own, its = pair()
        own_variables = self._settings.environment
        program = service.ManagerProgram(
            argv=manager(its.fileno()),
            variables=service.environment(own_variables, self._account),
            inherited=(its.fileno(), *inherited),
            credentials=service.credentials_directory(own_variables),
            descriptor_limit=self._settings.descriptor_limit,
        )
        self._manager = service.start_manager(program, self._account)
        its.close()
        close_all(inherited)
        lines.info(
            WHERE,
            f"The manager of {self._settings.endpoint} starts as {self._account.name}, process id {self._manager}",
        )
        self._channel = Channel(own)
        self._session = Session(
            self._channel, self._keepers, self._settings, self._notifier.tell, self._notifier.watchdog_s
        )
        self._watch_channel()
        gc.collect()
        gc.freeze()  # keepers are forked from here; what nobody touches stays shared
        self._record("session-begin")
        try:
            return self._serve()
        finally:
            self._record("session-end")

    def _serve(self) -> int:
        try:
            while self._status is None:
                self._turn()
            for _ in range(LAST_TURNS):  # what it asked for with its last breath
                self._session.readable()
        except EndpointError as error:
            return self._refuse_manager(error)
        if len(self._keepers):
            lines.info(WHERE, f"The manager has ended; {len(self._keepers)} user endpoints stay")
        status = os.waitstatus_to_exitcode(self._status)
        return status if status >= 0 else SIGNAL_BASE - status

    def _turn(self) -> None:
        waits = [] if self._keepers.deadline is None else [max(0.0, self._keepers.deadline - time.monotonic())]
        if not self._manager_left and (pause := self._session.pause_s) > 0:
            waits.append(pause)
        timeout = min(waits, default=None)
        for key, _ in self._selector.select(timeout):
            key.data()
        self._keepers.end_stuck()
        self._watch_channel()
        self._tell_number()

    def _tell_number(self) -> None:
        """For `systemctl status`."""
        if (number := len(self._keepers)) != self._told_number:
            self._told_number = number
            self._notifier.tell(f"STATUS={number} user endpoints")

    def _refuse_manager(self, error: EndpointError) -> int:
        """A manager that asks for what may not be asked is broken, or somebody else's: it gets no second chance."""
        lines.failed(WHERE, error.failure)
        self._record("bad-request", code=error.failure.code, reason=error.failure.reason)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._manager, signal.SIGKILL)
        return int(ExitStatus.BAD_REQUEST)

    # -- the manager's channel -----------------------------------------------------------------------------------------

    def _tell(self, event: Mapping[str, Any]) -> None:
        with contextlib.suppress(ChannelClosed):  # it has ended; the loop will see that
            self._channel.post(event)

    def _watch_channel(self) -> None:
        """Wait for what the manager sends, unless it sends too much, and for its taking what waits."""
        if self._manager_left:
            return
        wanted = 0 if self._session.pause_s > 0 else selectors.EVENT_READ
        wanted |= selectors.EVENT_WRITE if self._channel.waiting else 0
        watched = self._selector.get_map().get(self._channel.fileno())
        if watched is None and wanted:
            self._selector.register(self._channel, wanted, self._manager_ready)
        elif watched is not None and not wanted:
            self._selector.unregister(self._channel)
        elif watched is not None and watched.events != wanted:
            self._selector.modify(self._channel, wanted, self._manager_ready)

    def _manager_ready(self) -> None:
        with contextlib.suppress(ChannelClosed):
            self._channel.flush()
        if self._session.readable() is Ended.FOR_GOOD:
            # It closed its end: what counts is its exit status, which comes with SIGCHLD.
            self._manager_left = True
            if self._channel.fileno() in self._selector.get_map():
                self._selector.unregister(self._channel)

    # -- signals -------------------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (*PASSED_ON, signal.SIGCHLD):
            signal.signal(number, _noted)
        self._selector.register(reading, selectors.EVENT_READ, lambda: self._signals(reading))

    def _signals(self, descriptor: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in dict.fromkeys(os.read(descriptor, WAKEUP_BYTES)):
                if number == signal.SIGCHLD:
                    self._reap()
                elif self._status is None and number in PASSED_ON:
                    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
                        self._notifier.tell("STOPPING=1")
                    self._pass_on(signal.Signals(number))

    def _pass_on(self, number: signal.Signals) -> None:
        lines.info(WHERE, f"Got {number.name}: {SAID[number]}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._manager, PASSED_ON[number])

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._manager:
                self._status = status

    def _record(self, event: str, **more: str) -> None:
        settings = self._settings
        if settings.audit is not None:
            who = {"endpoint": settings.endpoint, "uid": settings.service_uid, "pid": self._manager}
            settings.audit.note({"event": event, **who, **more}, durable=True)


def _noted(number: int, frame: object) -> None:
    """The wakeup descriptor has it."""


def main(
    argv: Sequence[str] | None = None,
    *,
    manager_command: ManagerCommand | None = None,
    user_command: UserCommand | None = None,
    policy_directory: Path | None = None,
) -> int:
    """Run the monitor; returns its exit status.

    The keywords are for tests, which have programs of their own in the places of ours. No option leads to them.
    """
    os.umask(UMASK)
    try:
        arguments = Arguments.parse(sys.argv[1:] if argv is None else argv)
        lines.begin(arguments.name)
        named = (arguments.policy,) if policy_directory is None else (arguments.policy, policy_directory)
        policy = load_policy(arguments.name, *named)
        account = service.find_service_account(policy.service_user)
        service.check_directory(arguments.endpoint_dir, account)
        settings = _settings(arguments.name, policy, account, user_command or child.program)
        lock = settings.runtime.lock(arguments.endpoint_dir, account.uid)
        os.chdir("/")
        linux.set_process_name("gce-monitor")

        def default_command(monitor_fd: int) -> tuple[str, ...]:
            return service.command(arguments.name, arguments.endpoint_dir, arguments.manager, monitor_fd)

        monitor = Monitor(settings, account, Notifier(os.environ))
        inherited = service.passed_descriptors(arguments.manager)
        try:
            return monitor.run(manager_command or default_command, inherited)
        finally:
            os.close(lock)
    except EndpointError as error:
        lines.failed(WHERE, error.failure)
        return int(error.exit_status)


def _settings(name: str, policy: Policy, account: Account, program: UserCommand) -> Settings:
    return Settings(
        endpoint=name,
        policy=policy,
        bounds=Bounds.of(policy),
        service_uid=account.uid,
        runtime=Runtime.open(Path(policy.runtime_directory), name),
        environment=dict(os.environ),
        library=_library(policy),
        audit=_audit_log(policy),
        program=program,
        descriptor_limit=descriptors.raise_limit(),
    )


def _library(policy: Policy) -> Library | None:
    if not policy.pam.enable:
        return None
    service_name = policy.pam.service_name
    folders = [folder for folder in PAM_FOLDERS if folder.is_dir()]
    if folders and not any((folder / service_name).exists() for folder in folders):
        # PAM would take the service `other`, which on some systems lets everybody in.
        raise ConfigError(
            f"PAM has no service {service_name}",
            hint=f"Write {PAM_FOLDERS[0] / service_name} (docs/privileges.md has one), or set pam.service_name",
            code="NO_PAM_SERVICE",
        )
    return Library.load()


def _audit_log(policy: Policy) -> Any:
    if policy.audit_log is None:
        return None
    import endpoint.privileged.audit_tasks  # noqa: F401  # the keepers', who share it
    from endpoint.privileged.audit import AuditLog

    return AuditLog(policy.audit_log, audit_format="official" if policy.audit_format == "official" else "json")


if __name__ == "__main__":
    sys.exit(main())
