from __future__ import annotations

from endpoint.errors import FunctionNotAllowed, TaskLost
from endpoint.wire.codec import decode, encode
from endpoint.wire.results import error_result, not_allowed_reason

TASK = "5f6a7c1e-95a2-4a3e-8e5b-6d8d5c7f0a11"
ENDPOINT = "9f4fdd32-66ce-4e0b-b2a2-0f4c7a63f3b0"


def test_an_error_result_shows_the_user_the_failure() -> None:
    failure = TaskLost("The worker died", hint="Submit the task again", detail="/secret/path").failure
    result = error_result(TASK, failure)
    assert result.error_details is not None
    assert result.data == result.error_details.user_message == failure.for_user()
    assert result.error_details.code == "TASK_LOST"
    assert "/secret/path" not in result.data
    assert result.details is None
    assert decode(encode(result)) == result


def test_an_error_result_names_the_endpoint_where_it_is_known() -> None:
    assert ENDPOINT in error_result(TASK, TaskLost("The worker died").failure, endpoint_id=ENDPOINT).data


def test_a_refused_function_is_told_in_the_words_of_the_service() -> None:
    failure = FunctionNotAllowed(not_allowed_reason("F", "E")).failure
    result = error_result(TASK, failure, endpoint_id=ENDPOINT)
    assert result.data == "Function F not permitted on endpoint E"
    assert result.error_details is not None
    assert result.error_details.code == "FUNCTION_NOT_ALLOWED"


def test_an_error_result_can_be_sent_whatever_the_text() -> None:
    assert decode(encode(error_result(TASK, TaskLost("A name: \udcff").failure))).is_error
