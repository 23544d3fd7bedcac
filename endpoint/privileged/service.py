"""The manager's process: the service user's, without a right, a terminal, or a variable that it should not have."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from endpoint.errors import ConfigError, EndpointError
from endpoint.privileged import client_files, lines, linux
from endpoint.privileged.accounts import Account, find_account
from endpoint.privileged.become import Identity, become
from endpoint.privileged.descriptors import put_back
from endpoint.privileged.notify import without_notifier
from endpoint.privileged.steps import Step, StepFailed

LOOKUP_S = 30.0
LARGEST_ACCOUNT = 1024 * 1024  # bytes
UMASK = 0o077
_NOT_PASSED_ON = ("LD_", "PYTHON", "XDG_", "SUDO_", "DBUS_", client_files.DIRECTORY_VARIABLE)
READY_FD = "--ready-fd"


def find_service_account(name: str) -> Account:
    """The account that managers run as; raises ConfigError where there is none that may.

    A process of its own looks it up: a directory service's library may keep a connection, and the monitor has none.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            found = find_account(name)
            os.write(writing, json.dumps(asdict(found) if found else None).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        data = _read_all(reading)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not data or (found := json.loads(data)) is None:
        raise ConfigError(
            f"There is no user {name}, whom the endpoint's manager should run as",
            hint=f"Make it with: useradd --system --create-home {name}; or set service_user in the policy",
            code="NO_SERVICE_USER",
        )
    lists: dict[str, Any] = {key: tuple(found[key]) for key in ("groups", "group_names")}
    account = Account(**{**found, **lists})
    if account.uid == 0:
        raise ConfigError(f"The service user {name} is root", hint="Set another service_user in the policy")
    return account


def check_directory(directory: Path, account: Account) -> None:
    """Raise ConfigError unless the endpoint's directory belongs to the service user."""
    try:
        owner = directory.stat().st_uid
    except OSError as error:
        raise ConfigError(f"The endpoint's directory {directory} can't be read: {error.strerror}") from error
    if owner != account.uid:
        raise ConfigError(
            f"The endpoint's directory {directory} does not belong to {account.name}, whom its manager runs as",
            hint=f"chown -R {account.name} {directory}",
            code="NOT_SERVICE_USERS",
        )


def command(name: str, directory: Path, arguments: Sequence[str], monitor_fd: int) -> tuple[str, ...]:
    """The manager's command line."""
    program = (sys.executable, "-I", "-m", "endpoint.cli.main", "--config-dir", str(directory.parent))
    return (*program, "start", name, *arguments, "--monitor-fd", str(monitor_fd))


def environment(own: Mapping[str, str], account: Account) -> dict[str, str]:
    """The monitor's variables without those that change how programs are loaded, and with the service user's own."""
    kept = {name: value for name, value in without_notifier(own).items() if not name.startswith(_NOT_PASSED_ON)}
    who = {"HOME": account.home, "USER": account.name, "LOGNAME": account.name, "SHELL": account.shell}
    return {**kept, **who}


def passed_descriptors(arguments: Sequence[str]) -> list[int]:
    """The descriptors that the manager's arguments name, and that it inherits for that."""
    found = []
    for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
        value = word.partition("=")[2] if word.startswith(f"{READY_FD}=") else following if word == READY_FD else ""
        if value.isdigit() and int(value) > 2:
            found.append(int(value))
    return found


@dataclass(frozen=True)
class ManagerProgram:
    """What is started as the manager. `credentials`: a directory of root's in which its client identity may be."""

    argv: tuple[str, ...]
    variables: Mapping[str, str] = field(repr=False)
    inherited: tuple[int, ...] = ()
    credentials: Path | None = None
    descriptor_limit: tuple[int, int] | None = None


def start_manager(program: ManagerProgram, account: Account) -> int:
    """Fork and exec the manager; returns its process id. Raises OSError where there can't be another process."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_manager(program, account, parent)
    return pid


def _keep_terminal_to_write(*numbers: int) -> None:
    """Whoever has a terminal open for reading too, as shells have, can read what root types there."""
    for number in numbers:
        if os.isatty(number):
            again = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NOCTTY)
            os.dup2(again, number)
            os.close(again)


def _become_manager(program: ManagerProgram, account: Account, parent: int) -> NoReturn:
    step = Step.FORK
    status: int | None = None

    def enter(following: Step) -> None:
        nonlocal step
        step = following

    try:
        os.setsid()  # the terminal is the monitor's: what is typed there does not reach the manager twice
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        _keep_terminal_to_write(1, 2)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            if int(name) > 2:
                with suppress(OSError):
                    os.set_inheritable(int(name), int(name) in program.inherited)
        if program.descriptor_limit is not None:
            put_back(program.descriptor_limit)
        # Read here, and not in the monitor, whose memory the keepers inherit.
        client = client_files.read_client(program.credentials, (os.geteuid(), 0)) if program.credentials else None
        become(Identity(account.uid, account.gid, account.groups), enter)
        variables = dict(program.variables)
        linux.leave_session_keyring()
        if client is not None:
            variables = client_files.with_client(variables, client_files.handed_over(client))
        enter(Step.SESSION)
        os.umask(UMASK)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            raise StepFailed(Step.SESSION, "the monitor is gone")
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.chdir("/")
        enter(Step.EXEC)
        os.execve(program.argv[0], program.argv, variables)  # noqa: S606
    except ConfigError as error:
        status = int(error.exit_status)
        lines.failed("monitor", error.failure)
    except EndpointError as error:
        lines.failed("monitor", error.failure, step=step.value)
    except BaseException as error:  # noqa: BLE001  # anything else would go on as the monitor
        lines.error("monitor", f"The manager can't be started: {error}", step=step.value)
    os._exit(step.status if status is None else status)


def credentials_directory(own: Mapping[str, str]) -> Path | None:
    """Where systemd has put the credentials of the monitor's unit."""
    path = Path(own.get(client_files.DIRECTORY_VARIABLE, ""))
    return path if path.is_absolute() else None


def _read_all(descriptor: int) -> bytes:
    data = b""
    while len(data) < LARGEST_ACCOUNT:
        ready, _, _ = select.select([descriptor], [], [], LOOKUP_S)
        more = os.read(descriptor, LARGEST_ACCOUNT) if ready else b""
        if not more:
            break
        data += more
    return data
