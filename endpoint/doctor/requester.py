"""The web service as somebody uses it who submits a function, by its REST calls alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from endpoint.errors import EndpointError, NetworkFailure, Stage, UnexpectedAnswer
from endpoint.manager.compute_service import ComputeService

T = TypeVar("T")

MOST_PATIENCE_S = 65.0  # a submission is answered only when its user endpoint runs
FIRST_LOOK_S = 0.1
MOST_LOOK_S = 2.0  # between questions


class Requester(ComputeService):
    """`ComputeService` with what a user of an endpoint asks of it. Calls block, and raise what those of it do."""

    @contextmanager
    def registered(self, name: str, code: str) -> Iterator[str]:
        """The id of a function that is there for a while. code: packed."""
        body = {"function_name": name, "function_code": code, "description": "Asked for by: health"}
        answer = self._call(Stage.TASK, lambda: self._v3.register_function(body))
        function_id = _text(answer, "function_uuid")
        try:
            yield function_id
        finally:
            with suppress(EndpointError):  # one that stays is no harm
                self._call(Stage.TASK, lambda: self._v2.delete_function(function_id))

    def submit(self, endpoint_id: str, function_id: str, arguments: str, deadline: float, **options: Any) -> str:
        """Submit one task; its id. options: what else the submission has (`user_endpoint_config`, ...).

        Once, and with patience until `deadline`: a second try would be a second task.
        """
        patience_s = min(MOST_PATIENCE_S, max(1.0, deadline - time.monotonic()))
        body = {"tasks": {function_id: [arguments]}, "create_queue": False, **options}
        with self._v3.transport.tune(http_timeout=patience_s), self._v3.retry_config.tune(max_retries=0):
            answer = self._call(Stage.TASK, lambda: self._v3.submit(endpoint_id, body))
        tasks = answer.get("tasks")
        ids = tasks.get(function_id) if isinstance(tasks, Mapping) else None
        if not isinstance(ids, list) or len(ids) != 1:
            raise UnexpectedAnswer("The service's answer to a submission names no task", stage=Stage.TASK)
        return str(ids[0])

    def result(self, task_id: str, deadline: float) -> Mapping[str, Any] | None:
        """A task that has ended; None where it has not until `deadline` (of the monotonic clock)."""
        return poll(lambda: self._ended(task_id), deadline)

    def _ended(self, task_id: str) -> Mapping[str, Any] | None:
        answer = self._call(Stage.TASK, lambda: self._v2.get_task(task_id))
        return answer if "result" in answer or "exception" in answer else None


def poll(look: Callable[[], T | None], deadline: float) -> T | None:
    """What `look` finds, asked again and again, less and less often; None where that is nothing until `deadline`.

    A service that is away for a moment is asked again; at the deadline its NetworkFailure is raised.
    """
    pause = FIRST_LOOK_S
    while True:
        left = deadline - time.monotonic()
        try:
            found = look()
        except NetworkFailure:
            if left <= 0:
                raise
            found = None
        if found is not None or left <= 0:
            return found
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, MOST_LOOK_S)


def _text(answer: Mapping[str, Any], name: str) -> str:
    found = answer.get(name)
    if not isinstance(found, str) or not found:
        raise UnexpectedAnswer(f"The service's answer has no {name}", stage=Stage.TASK)
    return found
