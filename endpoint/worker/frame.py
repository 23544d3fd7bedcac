"""A task's bytes in, a result's bytes out: the two messages that a worker needs, and no more of the protocol."""

from __future__ import annotations

import json
from typing import Any

from endpoint.worker.failures import CouldNotExecuteUserTaskError

VERSION = b"\x01"
LARGE = 128 * 1024  # characters
BASE64 = ("00\n", "01\n")  # what texts start with that are base64 behind that; see strategies.py
NEWLINE, ESCAPED = "\n", r"\n"
_written = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def read_task(body: bytes, task_id: str) -> str:
    """The `task_buffer` of the task message in `body`, which must be of the task `task_id`.

    CouldNotExecuteUserTaskError for any other bytes.
    """
    if body[:1] != VERSION:
        raise CouldNotExecuteUserTaskError(f"This is no message of protocol version 1: {body[:8].hex() or 'no bytes'}")
    try:
        message = json.loads(str(memoryview(body)[1:], "utf-8"))
    except (ValueError, RecursionError) as error:
        raise CouldNotExecuteUserTaskError(f"The task message is not JSON in UTF-8: {error}") from None
    kind = message.get("message_type") if isinstance(message, dict) else None
    if kind != "task":
        raise CouldNotExecuteUserTaskError(f"The message is not a task but {str(kind)[:60]!a}")
    data = message.get("data")
    buffer = data.get("task_buffer") if isinstance(data, dict) else None
    if not isinstance(buffer, str):
        raise CouldNotExecuteUserTaskError("The task message has no task_buffer")
    if str(data.get("task_id")).lower() != task_id.lower():
        raise CouldNotExecuteUserTaskError(f"The task message names another task than its headers, which say {task_id}")
    return buffer


def write_result(
    task_id: str,
    data: str,
    *,
    details: dict[str, str | None],
    statuses: list[dict[str, Any]],
    error: dict[str, str] | None = None,
) -> bytes:
    """The bytes of a result message; UnicodeEncodeError where `data` is no text that UTF-8 has."""
    plain = error is None and len(data) >= LARGE and data.startswith(BASE64)
    message = {
        "message_type": "result",
        "data": {
            "task_id": task_id,
            "data": "" if plain else data,
            "details": details,
            "error_details": error,
            "task_statuses": statuses,
        },
    }
    text = _written(message)
    if plain:
        # Base64 has nothing to escape but its newlines, and looking at each of a million characters takes long.
        before, empty, after = text.partition('"data":""')
        text = f'{before}{empty[:-1]}{data.replace(NEWLINE, ESCAPED)}"{after}'
    return VERSION + text.encode()
