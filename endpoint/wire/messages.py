"""The messages of the protocol, as values that can't be wrong.

A constructor checks every field and raises `MalformedMessage` naming the first that is not what the protocol says, so
whoever holds a message need not look again. Task and endpoint ids are kept as lower-case uuid strings.
Source: docs/protocol.md, section 1; the bytes are `endpoint.wire.codec`'s affair.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from endpoint.errors import MalformedMessage

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_MAX_TIMESTAMP = 2**63 - 1


class TaskState(str, enum.Enum):
    """How far a task is."""

    RECEIVED = "received"
    WAITING_FOR_EP = "waiting-for-ep"
    WAITING_FOR_NODES = "waiting-for-nodes"
    WAITING_FOR_LAUNCH = "waiting-for-launch"
    EXECUTION_START = "execution-start"
    EXECUTION_END = "execution-end"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    RESULT_RECEIVED = "result-received"
    RESULT_ENQUEUED = "result-enqueued"
    # These the web service tells only of itself; a reader must know them all the same.
    AP_RECEIVED = "action-provider-received"
    AP_TASK_SUBMITTED = "action-provider-task-submitted"
    AP_TASK_GROUP_IN_PROGRESS = "action-provider-task-group-in-progress"
    AP_TASK_GROUP_COMPLETED = "action-provider-task-group-completed"
    AP_TASK_GROUP_ERROR = "action-provider-task-group-error"


class Actor(str, enum.Enum):
    """Who saw a transition."""

    WORKER = "worker"
    MANAGER = "manager"
    INTERCHANGE = "interchange"
    ENDPOINT = "endpoint"
    RESULT_PROCESSOR = "result-processor"
    WEB_SERVICE = "web-service"
    ACTION_PROVIDER = "action-provider"


def uuid_text(value: object, field: str) -> str:
    """`value` as a lower-case uuid with hyphens; MalformedMessage, naming `field`, where it is none."""
    if not isinstance(value, str) or _UUID.fullmatch(value) is None:
        raise MalformedMessage(f"{field} is not a uuid: {_shown(value)}")
    return value.lower()


@dataclass(frozen=True)
class Transition:
    """A task got into a state. `timestamp`: nanoseconds since the epoch."""

    timestamp: int
    state: TaskState
    actor: Actor

    def __post_init__(self) -> None:
        if not isinstance(self.timestamp, int) or isinstance(self.timestamp, bool):
            raise MalformedMessage(f"A transition's timestamp is not an integer: {_shown(self.timestamp)}")
        if not 0 <= self.timestamp <= _MAX_TIMESTAMP:
            raise MalformedMessage("A transition's timestamp is not in nanoseconds since the epoch")
        object.__setattr__(self, "state", _member(TaskState, self.state, "state"))
        object.__setattr__(self, "actor", _member(Actor, self.actor, "actor"))


@dataclass(frozen=True)
class Task:
    """A function to run: `task_buffer` is the packed function, args and kwargs, which only a worker opens."""

    task_id: str
    task_buffer: str
    container_id: str | None = None
    container: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "task_id", uuid_text(self.task_id, "task_id"))
        _check_text(self.task_buffer, "task_buffer")
        if self.container_id is not None:
            object.__setattr__(self, "container_id", uuid_text(self.container_id, "container_id"))
        _check_object(self.container, "container", optional=True)


@dataclass(frozen=True)
class ErrorDetails:
    """Why a task failed: a code for programs, a sentence for the user."""

    code: str
    user_message: str

    def __post_init__(self) -> None:
        _check_text(self.code, "error_details.code")
        _check_text(self.user_message, "error_details.user_message")


@dataclass(frozen=True)
class Result:
    """How a task ended: `data` is the serialized value, or the error's text where `error_details` is set.

    `details` describes the worker's environment; clients compare its versions with their own.
    """

    task_id: str
    data: str
    details: dict[str, Any] | None = None
    error_details: ErrorDetails | None = None
    task_statuses: tuple[Transition, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "task_id", uuid_text(self.task_id, "task_id"))
        _check_text(self.data, "data")
        _check_object(self.details, "details", optional=True)
        if self.error_details is not None and not isinstance(self.error_details, ErrorDetails):
            raise MalformedMessage("error_details is not an object with code and user_message")
        if self.task_statuses is not None:
            object.__setattr__(self, "task_statuses", _transitions(self.task_statuses, "task_statuses"))

    @property
    def is_error(self) -> bool:
        return self.error_details is not None


@dataclass(frozen=True)
class StatusReport:
    """A heartbeat: figures of the endpoint, and what became of tasks since the last one (task id -> transitions)."""

    endpoint_id: str
    global_state: dict[str, Any]
    task_statuses: dict[str, tuple[Transition, ...]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint_id", uuid_text(self.endpoint_id, "endpoint_id"))
        _check_object(self.global_state, "global_state")
        _check_object(self.task_statuses, "task_statuses")
        checked = {task_id: _transitions(seen, "task_statuses") for task_id, seen in self.task_statuses.items()}
        object.__setattr__(self, "task_statuses", checked)


@dataclass(frozen=True)
class TaskCancel:
    """Nobody wants this task's result any more."""

    task_id: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "task_id", uuid_text(self.task_id, "task_id"))


Message = Task | Result | StatusReport | TaskCancel


def _member(kind: type[enum.Enum], value: object, field: str) -> enum.Enum:
    try:
        return kind(value)
    except ValueError:
        raise MalformedMessage(f"A transition's {field} is unknown: {_shown(value)}") from None


def _transitions(value: object, field: str) -> tuple[Transition, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, Transition) for one in value):
        raise MalformedMessage(f"{field} does not hold transitions")
    return tuple(value)


def _check_text(value: object, field: str) -> None:
    if not isinstance(value, str):
        raise MalformedMessage(f"{field} is not a string but {_kind(value)}")
    if value.isascii():
        return
    try:  # half a surrogate pair is a string in Python, yet no text that a message can hold
        value.encode()
    except UnicodeEncodeError:
        raise MalformedMessage(f"{field} holds characters that UTF-8 does not have") from None


def _check_object(value: object, field: str, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if not isinstance(value, Mapping):
        raise MalformedMessage(f"{field} is not an object but {_kind(value)}")
    if not all(isinstance(key, str) for key in value):
        raise MalformedMessage(f"{field} has a key that is not a string")


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _shown(value: object) -> str:
    text = ascii(value) if isinstance(value, str | int | float | None) else _kind(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
