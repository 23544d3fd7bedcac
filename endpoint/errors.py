"""Failures in one form: whose fault, whether to try again, what to do next.

Every failure that somebody will read (an admin on a terminal, an admin in a log, a user through a failure notice, an
HTTP 422 or a future's exception) is the same `Failure`. Libraries' exceptions are translated into this tree at the
edge that calls the library; above that edge only these classes are caught.

The exit statuses are those that users of Globus Compute endpoints know; they follow sysexits.h.
"""

from __future__ import annotations

import enum
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar


class ExitStatus(enum.IntEnum):
    """How a process of ours ends, for the parent and for scripts."""

    OK = 0
    FAILED = 1  # anything without a status of its own
    USAGE = 64
    REGISTRATION_REFUSED = 65  # the service answered 400 or 422
    ENDPOINT_BLOCKED = 69  # the service answered 404, 409 or 423
    UNEXPECTED_ANSWER = 70  # the service answered something else
    ALREADY_RUNNING = 73  # another instance holds the PID file
    NETWORK = 75  # the service or the broker can't be reached
    BAD_REQUEST = 76  # a manager asked its monitor for what may not be asked
    MAPPING_UNREADABLE = 77  # the identity-mapping file
    BAD_CONFIG = 78
    INTERRUPTED = 130


class Stage(str, enum.Enum):
    """Where on the road from `configure` to a result something failed."""

    CONFIGURE = "configure"
    LOGIN = "login"
    REGISTER = "register"
    CONNECT = "connect"
    COMMAND = "command"
    MAP_IDENTITY = "map-identity"
    POLICY = "policy"
    PAM = "pam"
    RENDER = "render"
    VALIDATE = "validate"
    EXEC = "exec"
    ENGINE = "engine"
    TASK = "task"
    PUBLISH = "publish"
    RUN = "run"
    HUB = "hub"
    STOP = "stop"


class Mender(str, enum.Enum):
    """Who can mend it."""

    USER = "user"
    ADMIN = "admin"
    SERVICE = "service"
    DEVELOPER = "developer"


@dataclass(frozen=True)
class Failure:
    """One failure, as data.

    reason: one sentence, fit for the user; says what happened and where.
    hint: what to do next, fit for the user.
    detail: more for the admin (file names, tracebacks); never shown to a user.
    """

    stage: Stage
    code: str
    reason: str
    mender: Mender
    hint: str = ""
    retry: bool = False
    detail: str = ""

    def __post_init__(self) -> None:
        for name in ("reason", "hint", "detail"):
            object.__setattr__(self, name, redact(getattr(self, name)))

    @property
    def fields(self) -> dict[str, str]:
        """For the log: `extra=failure.fields`."""
        return {"stage": self.stage.value, "code": self.code}

    def for_user(self) -> str:
        """What a user reads in a failure notice, a 422 or a future's exception; one paragraph."""
        if self.mender is Mender.USER:
            whom = ""
        elif self.mender is Mender.ADMIN:
            whom = " Contact the endpoint's administrator."
        else:
            whom = " Try again later." if self.retry else ""
        return f"{_sentence(self.reason)}{_gap(self.hint)}{whom} [{self.stage.value}: {self.code}]"

    def for_admin(self) -> str:
        """What an admin reads on the terminal or in the log; may span lines."""
        lines = [f"{_sentence(self.reason)} [{self.stage.value}: {self.code}]"]
        if self.hint:
            lines.append(f"What to do next: {_sentence(self.hint)}")
        if self.detail:
            lines.append(self.detail.rstrip())
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: plain values, the enumerations as their words."""
        return {key: value.value if isinstance(value, enum.Enum) else value for key, value in asdict(self).items()}


class EndpointError(Exception):
    """The root of our errors; carries a `Failure`. Raise one of its subclasses, which say whose fault it is."""

    mender: ClassVar[Mender] = Mender.DEVELOPER
    retry: ClassVar[bool] = False
    exit_status: ClassVar[ExitStatus] = ExitStatus.FAILED
    stage: ClassVar[Stage] = Stage.RUN
    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(
        self, reason: str, *, hint: str = "", detail: str = "", stage: Stage | None = None, code: str | None = None
    ) -> None:
        self.failure = Failure(
            stage=stage or self.stage,
            code=code or self.code,
            reason=reason,
            mender=self.mender,
            hint=hint,
            retry=self.retry,
            detail=detail,
        )
        super().__init__(self.failure.reason)

    def at(self, stage: Stage) -> EndpointError:
        """The same error, seen from another stage of the road."""
        self.failure = replace(self.failure, stage=stage)
        return self


class UsageError(EndpointError):
    """The command line asks for something that makes no sense."""

    mender = Mender.ADMIN
    exit_status = ExitStatus.USAGE
    stage = Stage.CONFIGURE
    code = "USAGE"


class ConfigError(EndpointError):
    """A file that an administrator wrote is wrong, or missing."""

    mender = Mender.ADMIN
    exit_status = ExitStatus.BAD_CONFIG
    stage = Stage.VALIDATE
    code = "BAD_CONFIG"


class UserOptionsError(EndpointError):
    """The options that a user sent with a submission don't fit the endpoint's schema or template."""

    mender = Mender.USER
    exit_status = ExitStatus.BAD_CONFIG
    stage = Stage.RENDER
    code = "BAD_USER_OPTIONS"


class MappingError(EndpointError):
    """The identity mapping can't be read."""

    mender = Mender.ADMIN
    exit_status = ExitStatus.MAPPING_UNREADABLE
    stage = Stage.MAP_IDENTITY
    code = "MAPPING_UNREADABLE"


class LoginError(EndpointError):
    """No usable credentials for the service."""

    mender = Mender.ADMIN
    stage = Stage.LOGIN
    code = "LOGIN_REQUIRED"


class RegistrationRefused(EndpointError):
    """The service says that what we register is wrong (400, 422)."""

    mender = Mender.ADMIN
    exit_status = ExitStatus.REGISTRATION_REFUSED
    stage = Stage.REGISTER
    code = "REGISTRATION_REFUSED"


class EndpointBlocked(EndpointError):
    """The service won't have this endpoint now (404, 409, 423)."""

    mender = Mender.ADMIN
    exit_status = ExitStatus.ENDPOINT_BLOCKED
    stage = Stage.REGISTER
    code = "ENDPOINT_BLOCKED"


class UnexpectedAnswer(EndpointError):
    """The service answered something that the protocol doesn't have."""

    mender = Mender.SERVICE
    retry = True
    exit_status = ExitStatus.UNEXPECTED_ANSWER
    stage = Stage.REGISTER
    code = "UNEXPECTED_ANSWER"


class AlreadyRunning(EndpointError):
    """Another instance of this endpoint runs, here or on another host."""

    mender = Mender.ADMIN
    exit_status = ExitStatus.ALREADY_RUNNING
    code = "ALREADY_RUNNING"


class NetworkFailure(EndpointError):
    """The service or the broker can't be reached."""

    mender = Mender.SERVICE
    retry = True
    exit_status = ExitStatus.NETWORK
    stage = Stage.CONNECT
    code = "UNREACHABLE"


class AccessRefused(EndpointError):
    """The broker refuses our credentials, or our use of a queue."""

    mender = Mender.SERVICE
    exit_status = ExitStatus.NETWORK
    stage = Stage.CONNECT
    code = "ACCESS_REFUSED"


class QueueInUse(NetworkFailure):
    """Another connection consumes from a queue that is for one only; perhaps a dead one that the broker still believes.

    That ends when the broker misses its heartbeats.
    """

    code = "QUEUE_IN_USE"


class MalformedMessage(EndpointError):
    """Bytes from the network that are not a message of the protocol; keeps the first of them."""

    mender = Mender.SERVICE
    stage = Stage.TASK
    code = "MALFORMED_MESSAGE"

    def __init__(self, reason: str, *, raw: bytes = b"", **kwargs: Any) -> None:
        super().__init__(reason, **kwargs)
        self.raw = raw[:256]


class CommandRefused(EndpointError):
    """A command to the manager that is malformed, too old, unknown, or not permitted."""

    mender = Mender.SERVICE
    stage = Stage.COMMAND
    code = "COMMAND_REFUSED"


class FunctionNotAllowed(EndpointError):
    """The endpoint's allow-list does not have the function."""

    mender = Mender.USER
    stage = Stage.TASK
    code = "FUNCTION_NOT_ALLOWED"


class TaskRefused(EndpointError):
    """A task that can't be given to the engine: its headers or its resource specification are wrong."""

    mender = Mender.USER
    stage = Stage.TASK
    code = "TASK_REFUSED"


class EngineFailure(EndpointError):
    """The engine can't start, or can't go on."""

    mender = Mender.ADMIN
    stage = Stage.ENGINE
    code = "ENGINE_FAILURE"


class EngineGone(EngineFailure):
    """The engine broke in the midst of its work; another one like it may do better."""

    code = "ENGINE_GONE"


class BlocksFail(EngineFailure):
    """Blocks end before a worker comes up, again and again, so that the engine asks for no more of them for a time."""

    code = "BLOCKS_FAIL"


class NotBegun(EndpointError):
    """The engine gives a task back as it was: no worker has begun it."""

    retry = True
    stage = Stage.ENGINE
    code = "NOT_BEGUN"


class TaskCancelled(EndpointError):
    """Somebody who may do so did not want a task's result any more. Whether it had begun is said in the reason."""

    mender = Mender.USER
    stage = Stage.TASK
    code = "TASK_CANCELLED"


class TaskInterrupted(EndpointError):
    """A task had begun when the process that ran it ended. It may have done things, so it is not run again unasked."""

    mender = Mender.USER
    stage = Stage.ENGINE
    code = "TASK_INTERRUPTED"


class TaskLost(EndpointError):
    """A task was given to the engine, which lost it (a worker died, a block ended)."""

    mender = Mender.ADMIN
    retry = True
    stage = Stage.ENGINE
    code = "TASK_LOST"


_URL_PASSWORD = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+(?=@)", re.IGNORECASE)
_BEARER = re.compile(r"(?P<before>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_FIELD = re.compile(
    r"""(?P<before>["']?(?:access_token|refresh_token|client_secret|password|enckey)["']?\s*[:=]\s*["']?)[^\s"',}&]+""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """`text` without passwords in URLs, bearer tokens, and values of fields that hold secrets."""
    for pattern in (_URL_PASSWORD, _BEARER, _FIELD):
        text = pattern.sub(r"\g<before>***", text)
    return text


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def _gap(text: str) -> str:
    return f" {_sentence(text)}" if text else ""
