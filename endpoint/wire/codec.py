"""Messages to bytes and back: one byte 0x01, then a JSON object in UTF-8 without newlines.

`decode` is for bytes from the network: whatever they are, it returns a message or raises `MalformedMessage`, which
keeps the first of them for the log. Fields that it doesn't know it leaves aside, as the protocol asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

from endpoint.errors import MalformedMessage
from endpoint.wire.messages import ErrorDetails, Message, Result, StatusReport, Task, TaskCancel, Transition

VERSION = b"\x01"
# 10 MiB of characters, each written as a \uXXXX escape, and room for the fields around them.
MAX_BODY = 64 * 1024 * 1024
LARGEST_CANCEL = 1024  # bytes; with fields that a later version may add


def encode(message: Message) -> bytes:
    """The bytes of `message`; MalformedMessage where a free-form field holds what JSON or UTF-8 does not have."""
    if isinstance(message, Task):
        kind, data = "task", dict(vars(message))
    elif isinstance(message, Result):
        kind, data = "result", _result_data(message)
    elif isinstance(message, StatusReport):
        kind, data = "ep_status_report", _report_data(message)
    else:
        kind, data = "task_cancel", {"task_id": message.task_id}
    try:
        text = json.dumps(
            {"message_type": kind, "data": data}, ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )
        return VERSION + text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedMessage(f"A {kind} message can't be written as JSON: {error}") from error


def decode(body: bytes, *, limit: int = MAX_BODY) -> Message:
    """The message in `body`, of `limit` bytes at the most; MalformedMessage, with the bytes, for anything else."""
    try:
        kind, data = _envelope(body, limit)
        return _READERS[kind](data)
    except MalformedMessage as error:
        error.raw = bytes(body[:256])
        raise


def cancelled_task(body: bytes) -> str | None:
    """The id of the task that a message of the task queue cancels; None for every other message.

    This is asked for every task, so nothing is read that can be none.
    """
    if len(body) > LARGEST_CANCEL or b'"task_cancel"' not in body:
        return None
    try:
        message = decode(body)
    except MalformedMessage:
        return None
    return message.task_id if isinstance(message, TaskCancel) else None


def _envelope(body: bytes, limit: int) -> tuple[str, dict[str, Any]]:
    if not body:
        raise MalformedMessage("A message without any bytes")
    if len(body) > limit:
        raise MalformedMessage(f"A message of {len(body)} bytes, where {limit} are the most")
    if body[:1] != VERSION:
        raise MalformedMessage(f"A message of protocol version {body[0]}, where only 1 is known")
    try:
        envelope = json.loads(str(memoryview(body)[1:], "utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"A message that is not JSON in UTF-8: {error}") from error
    if not isinstance(envelope, dict):
        raise MalformedMessage("A message that is not a JSON object")
    kind, data = envelope.get("message_type"), envelope.get("data")
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise MalformedMessage("A message without a message_type string and a data object")
    if kind not in _READERS:
        raise MalformedMessage(f"A message of an unknown type: {kind[:60]!a}")
    return kind, data


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _result_data(message: Result) -> dict[str, Any]:
    error, statuses = message.error_details, message.task_statuses
    return {
        **vars(message),
        "error_details": None if error is None else vars(error),
        "task_statuses": None if statuses is None else [vars(one) for one in statuses],
    }


def _report_data(message: StatusReport) -> dict[str, Any]:
    statuses = {task_id: [vars(one) for one in seen] for task_id, seen in message.task_statuses.items()}
    return {**vars(message), "task_statuses": statuses}


def _read_task(data: dict[str, Any]) -> Task:
    return Task(_need(data, "task_id"), _need(data, "task_buffer"), data.get("container_id"), data.get("container"))


def _read_result(data: dict[str, Any]) -> Result:
    error, statuses = data.get("error_details"), data.get("task_statuses")
    if isinstance(error, dict):
        error = ErrorDetails(_need(error, "code"), _need(error, "user_message"))
    return Result(
        task_id=_need(data, "task_id"),
        data=_need(data, "data"),
        details=data.get("details"),
        error_details=error,
        task_statuses=None if statuses is None else _read_transitions(statuses),
    )


def _read_report(data: dict[str, Any]) -> StatusReport:
    alias = "ep_status_report" if "global_state" not in data and "ep_status_report" in data else "global_state"
    statuses = _need(data, "task_statuses")
    if isinstance(statuses, dict):
        statuses = {task_id: _read_transitions(seen) for task_id, seen in statuses.items()}
    return StatusReport(_need(data, "endpoint_id"), _need(data, alias), statuses)


def _read_cancel(data: dict[str, Any]) -> TaskCancel:
    return TaskCancel(_need(data, "task_id"))


def _read_transitions(value: object) -> tuple[Transition, ...]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise MalformedMessage("task_statuses does not hold lists of transitions")
    return tuple(Transition(_need(one, "timestamp"), _need(one, "state"), _need(one, "actor")) for one in value)


def _need(data: dict[str, Any], field: str) -> Any:
    try:
        return data[field]
    except KeyError:
        raise MalformedMessage(f"A message without {field}") from None


_READERS: dict[str, Callable[[dict[str, Any]], Message]] = {
    "task": _read_task,
    "result": _read_result,
    "ep_status_report": _read_report,
    "task_cancel": _read_cancel,
}
