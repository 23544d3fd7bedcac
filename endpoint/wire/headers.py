"""The headers that travel with a task: who runs what, on which resources, and how to serialize the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from endpoint.errors import MalformedMessage, TaskRefused
from endpoint.wire.messages import uuid_text


class HeadersRefused(TaskRefused):
    """Headers that are not those of a task. `task_id` is None where not even that could be read."""

    code = "MALFORMED_HEADERS"

    def __init__(self, reason: str, *, task_id: str | None = None) -> None:
        super().__init__(reason)
        self.task_id = task_id


@dataclass(frozen=True)
class TaskHeaders:
    """`properties.headers` of a task's delivery, checked."""

    task_id: str
    function_id: str
    resource_specification: dict[str, Any]
    result_serializers: tuple[str, ...]

    @classmethod
    def parse(cls, headers: Mapping[str, Any] | None) -> TaskHeaders:
        """The headers of a task; HeadersRefused (a TaskRefused) for anything else."""
        headers = headers or {}
        task_id = _id(headers, "task_uuid", None)
        return cls(
            task_id=task_id,
            function_id=_id(headers, "function_uuid", task_id),
            resource_specification=_resources(headers.get("resource_specification"), task_id),
            result_serializers=_serializers(headers.get("result_serializers"), task_id),
        )


def _id(headers: Mapping[str, Any], name: str, task_id: str | None) -> str:
    if headers.get(name) in (None, ""):
        raise HeadersRefused(f"The task came without the header {name}", task_id=task_id)
    try:
        return uuid_text(headers[name], f"The header {name}")
    except MalformedMessage as error:
        raise HeadersRefused(error.failure.reason, task_id=task_id) from error


def _resources(text: object, task_id: str) -> dict[str, Any]:
    if not text:
        return {}
    if not isinstance(text, str):
        raise HeadersRefused("The header resource_specification is not a string of JSON", task_id=task_id)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HeadersRefused(f"The header resource_specification is not JSON: {error}", task_id=task_id) from error
    if value and not isinstance(value, dict):
        raise HeadersRefused("The header resource_specification is not a JSON object", task_id=task_id)
    return value or {}


def _serializers(value: object, task_id: str) -> tuple[str, ...]:
    if not value:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise HeadersRefused("The header result_serializers is not a list of import paths", task_id=task_id)
    return tuple(value)
