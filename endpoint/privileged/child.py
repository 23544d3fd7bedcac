"""From fork to exec: the straight line that ends as the user's own program.

Everything that can fail in an interesting way was done before the fork. The child takes the steps in their order; the
first that fails is told through a pipe that closes by itself at exec, and is the child's exit status.

Descriptors of the program: 0 its document, 1 and 2 /dev/null, 3 a pipe for its failure, 4 its credentials, 5 a pipe for
audit lines.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

from endpoint.privileged import linux
from endpoint.privileged.become import Identity, become
from endpoint.privileged.steps import Step, StepFailed

UMASK = 0o077
LOWEST_MOVED = 10  # descriptors go above this before they go to their places
PATH = "/usr/local/bin:/usr/bin:/bin"
LIMITS: Mapping[str, int] = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"  # the same as NOFILE
}

Limits = dict[str, tuple[int, int]]  # soft and hard, by the names that limits.conf(5) has for most of them


@dataclass(frozen=True)
class Descriptors:
    """What the program gets, by what it is for."""

    document: int
    failure: int
    credentials: int
    audit: int
    null: int

    def in_place(self) -> dict[int, int]:
        """Which of them becomes which number."""
        return {0: self.document, 1: self.null, 2: self.null, 3: self.failure, 4: self.credentials, 5: self.audit}


@dataclass(frozen=True)
class Plan:
    """A program to start as a user."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    identity: Identity
    home: str
    limits: Limits
    descriptors: Descriptors
    no_new_privileges: bool = False
    drop_bounding_set: bool = False


def read_limits() -> Limits:
    """The resource limits of this process."""
    return {name: resource.getrlimit(number) for name, number in LIMITS.items()}


def set_limits(limits: Limits) -> None:
    """Set each that is another; raises OSError or ValueError."""
    for name, wanted in limits.items():
        if resource.getrlimit(LIMITS[name]) != wanted:
            resource.setrlimit(LIMITS[name], wanted)


def restore_limits(limits: Limits) -> None:
    """Set each as far as this process may: a hard limit can't be raised without the capability for it."""
    for name, (soft, hard) in limits.items():
        for wanted in (
            (soft, hard),
            (soft, resource.getrlimit(LIMITS[name])[1]),
            (resource.getrlimit(LIMITS[name])[1],) * 2,
        ):
            try:
                set_limits({name: wanted})
                break
            except (OSError, ValueError):
                continue


def clean_environment(name: str, home: str, shell: str, own: Mapping[str, str]) -> dict[str, str]:
    """The variables of a user's process that come from us: nothing of this process's but its language."""
    environment = {"PATH": PATH, "HOME": home, "USER": name, "LOGNAME": name, "SHELL": shell}
    if "LANG" in own:
        environment["LANG"] = own["LANG"]
    return environment


def start(plan: Plan) -> tuple[int, int]:
    """Fork the child; returns its process id, and the pipe through which it tells its steps. Raises StepFailed.

    The pipe brings JSON lines: `{"limits": ...}`, and `{"step": ..., "error": ...}` for the step that failed; it ends
    when the user's program takes over.
    """
    parent = os.getpid()
    told, telling = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError as error:
        os.close(told)
        os.close(telling)
        raise StepFailed(Step.FORK, str(error)) from error
    if pid == 0:
        _Child(plan, telling, parent).run()
    os.close(telling)
    return pid, told


class _Child:
    """The process between fork and exec."""

    def __init__(self, plan: Plan, telling: int, parent: int) -> None:
        self._plan = plan
        self._telling = telling
        self._parent = parent
        self._step = Step.FORK

    def run(self) -> NoReturn:
        """Never comes back, whatever happens."""
        status = Step.FORK.status
        try:
            self._steps()
        except BaseException as error:  # noqa: BLE001  # anything else would go on with the parent's work
            status = self._step.status
            detail = error.failure.detail if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}"
            with suppress(BaseException):
                self._tell({"step": self._step.value, "error": detail[:2000]})
        finally:
            os._exit(status)

    def _steps(self) -> NoReturn:
        plan = self._plan
        self._telling = _moved(self._telling)
        places = {number: _moved(descriptor) for number, descriptor in plan.descriptors.in_place().items()}
        if plan.drop_bounding_set:
            linux.drop_bounding_set()
        set_limits(plan.limits)
        last = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208  # the user can't look there
        become(plan.identity, self._enter)
        if plan.drop_bounding_set and linux.own_capabilities().bounding:
            raise StepFailed(Step.VERIFY, "the bounding set is not empty")
        self._enter(Step.SESSION)
        self._session()
        self._enter(Step.LIMITS)
        self._limits()
        self._enter(Step.DIRECTORY)
        self._directory()
        self._enter(Step.DESCRIPTORS)
        for number, descriptor in places.items():
            os.dup2(descriptor, number)
        os.closerange(len(places), self._telling)
        os.closerange(self._telling + 1, last + 1)
        self._enter(Step.EXEC)
        os.execve(plan.argv[0], plan.argv, dict(plan.environment))  # noqa: S606

    def _session(self) -> None:
        os.setsid()
        os.umask(UMASK)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self._parent:  # it went before the kernel knew whom to tell
            raise StepFailed(Step.SESSION, "the keeper is gone")
        if self._plan.no_new_privileges:
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            # The C library keeps two of them for itself.
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def _limits(self) -> None:
        """Read them back: what PAM reports as success need not have been done."""
        found = read_limits()
        if found != self._plan.limits:
            raise StepFailed(Step.LIMITS, f"this process has the limits {found}, not {self._plan.limits}")
        self._tell({"limits": found})

    def _directory(self) -> None:
        try:
            os.chdir(self._plan.home)
        except OSError:
            os.chdir("/")

    def _enter(self, step: Step) -> None:
        self._step = step

    def _tell(self, what: Mapping[str, object]) -> None:
        os.write(self._telling, json.dumps(what).encode() + b"\n")


def _moved(descriptor: int) -> int:
    """A copy of a descriptor out of the way of the numbers that are taken; closed at exec in any case."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, LOWEST_MOVED)


def told_error(error: str) -> str:
    """Words for an administrator about an errno that has a common cause."""
    if f"[Errno {errno.EAGAIN}]" in error:
        return f"{error} (the user's limit of processes, nproc, may be reached)"
    return error


def program(name: str) -> tuple[str, ...]:
    """The command line of what a user endpoint starts as."""
    return (sys.executable, "-I", "-m", "endpoint.cli.prepare", name)
