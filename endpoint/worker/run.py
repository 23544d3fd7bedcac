"""Run one task: the bytes of its message in, the bytes of its result out.

This is all that a worker process needs of us: the standard library, and dill when a task was written with it.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from endpoint.worker.allowed import Allowed
from endpoint.worker.deadline import Expired, limit, seconds_allowed
from endpoint.worker.environment import details, enter
from endpoint.worker.failures import CouldNotExecuteUserTaskError, MaxResultSizeExceeded, TaskTimeout
from endpoint.worker.frame import read_task, write_result
from endpoint.worker.report import error_text
from endpoint.worker.serializer import dump_result, load_task
from endpoint.worker.starts import may_begin

RESULT_SIZE_LIMIT = 10 * 1024 * 1024


def run_task(body: bytes, options: dict[str, Any]) -> bytes:
    """The result of the task in `body`, whatever happens in it: what the task does wrong is an error result.

    `options`: `task_id` (str), `endpoint_id` (str), `run_dir` (absolute path; None to stay where the process is),
    `sandbox` (bool), `result_size_limit` (characters), `result_serializers` (import paths, the first that works is
    taken), `allowed_serializers` (import paths, None or empty for all), `starts` (the file where starts are noted).

    No bytes at all where the start can't be noted: the task has not begun.
    """
    if not may_begin(options["task_id"], options.get("starts")):
        return b""
    started = _transition("execution-start")
    error: dict[str, str] | None
    try:
        data, error = _value_of(body, options), None
        data.isascii() or data.encode()  # half a surrogate pair must show itself while it can still be an error
    except BaseException as raised:
        data, error = error_text(raised)
    return write_result(
        options["task_id"],
        data,
        details=details(options.get("endpoint_id")),
        statuses=[started, _transition("execution-end")],
        error=error,
    )


def failed_task(options: dict[str, Any], error: BaseException) -> bytes:
    """The result of a task that could not even begin. `options` as for `run_task`."""
    data, code = error_text(error)
    return write_result(
        options["task_id"],
        data,
        details=details(options.get("endpoint_id")),
        statuses=[_transition("execution-end")],
        error=code,
    )


def _value_of(body: bytes, options: dict[str, Any]) -> str:
    enter(options["task_id"], options.get("run_dir"), sandbox=bool(options.get("sandbox")))
    try:
        allowed = _allowed(tuple(options.get("allowed_serializers") or ()))
    except ValueError as wrong:
        raise CouldNotExecuteUserTaskError(f"The endpoint's configuration is wrong: {wrong}") from None
    function, args, kwargs = load_task(read_task(body, options["task_id"]), allowed)
    value = _call(function, args, kwargs)
    data = dump_result(value, options.get("result_serializers") or ())
    most = options.get("result_size_limit") or RESULT_SIZE_LIMIT
    if len(data) > most:
        raise MaxResultSizeExceeded(
            f"The function's result is {len(data)} characters long when written out, and {most} are the most. "
            f"Return less, or write it to a file and return its name"
        )
    return data


_allowed = functools.lru_cache(maxsize=8)(Allowed)


def _call(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    seconds = seconds_allowed()
    try:
        with limit(seconds) as clock:
            value = function(*args, **kwargs)
        if not clock.expired:
            return value
    except Expired:
        pass
    raise TaskTimeout(f"The function did not end within {seconds:g} seconds, which is the endpoint's limit for a task")


def _transition(state: str) -> dict[str, Any]:
    return {"timestamp": time.time_ns(), "state": state, "actor": "worker"}
