"""Error results that the endpoint itself writes, for tasks that no worker ran to its end."""

from __future__ import annotations

from endpoint.errors import Failure
from endpoint.wire.messages import ErrorDetails, Result

# Texts that clients know word for word: the reason is shown as it is.
_FIXED = frozenset({"FUNCTION_NOT_ALLOWED"})


def not_allowed_reason(function_id: str, endpoint_id: str) -> str:
    """The reason of a FunctionNotAllowed, in the words that the web service uses too."""
    return f"Function {function_id} not permitted on endpoint {endpoint_id}"


def error_result(task_id: str, failure: Failure, *, endpoint_id: str | None = None) -> Result:
    """The result that tells the user of `failure`; its text names the endpoint where `endpoint_id` is given.

    `details` stays null: a client takes its versions for a worker's, and here no worker had a part.
    """
    if failure.code in _FIXED:
        text = failure.reason
    else:
        text = failure.for_user() if endpoint_id is None else f"{failure.for_user()} [endpoint: {endpoint_id}]"
    text = text.encode(errors="backslashreplace").decode()
    return Result(task_id, text, error_details=ErrorDetails(failure.code, text))
