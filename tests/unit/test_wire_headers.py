from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.errors import TaskRefused
from endpoint.wire.headers import HeadersRefused, TaskHeaders

TASK = "5f6a7c1e-95a2-4a3e-8e5b-6d8d5c7f0a11"
FUNCTION = "0d1c9c7e-1d4c-4a65-9a8e-0b9f1d2e3c44"
BOTH = {"task_uuid": TASK, "function_uuid": FUNCTION}


def test_headers_are_read() -> None:
    headers = {
        **BOTH,
        "task_uuid": TASK.upper(),
        "resource_specification": '{"num_nodes": 2}',
        "result_serializers": ["globus_compute_sdk.serialize.JSONData"],
        "other": 1,
    }
    assert TaskHeaders.parse(headers) == TaskHeaders(
        TASK, FUNCTION, {"num_nodes": 2}, ("globus_compute_sdk.serialize.JSONData",)
    )


@pytest.mark.parametrize("nothing", [{}, {"resource_specification": None}, {"resource_specification": "null"}])
def test_what_may_be_absent_is_empty(nothing: dict[str, Any]) -> None:
    assert TaskHeaders.parse({**BOTH, **nothing, "result_serializers": None}) == TaskHeaders(TASK, FUNCTION, {}, ())


@pytest.mark.parametrize(
    ("headers", "said", "task_id"),
    [
        (None, "without the header task_uuid", None),
        ({"function_uuid": FUNCTION}, "without the header task_uuid", None),
        ({"task_uuid": "seven"}, "task_uuid is not a uuid: 'seven'", None),
        ({"task_uuid": TASK}, "without the header function_uuid", TASK),
        ({"task_uuid": TASK, "function_uuid": 7}, "function_uuid is not a uuid: 7", TASK),
        ({**BOTH, "resource_specification": "{"}, "resource_specification is not JSON", TASK),
        ({**BOTH, "resource_specification": "[1]"}, "not a JSON object", TASK),
        ({**BOTH, "resource_specification": {"a": 1}}, "not a string of JSON", TASK),
        ({**BOTH, "result_serializers": "JSONData"}, "not a list of import paths", TASK),
        ({**BOTH, "result_serializers": [1]}, "not a list of import paths", TASK),
    ],
)
def test_a_refusal_says_what_is_wrong_and_whose_task_it_is(
    headers: dict[str, Any] | None, said: str, task_id: str | None
) -> None:
    with pytest.raises(HeadersRefused, match=said) as refusal:
        TaskHeaders.parse(headers)
    assert refusal.value.task_id == task_id
    assert isinstance(refusal.value, TaskRefused)


@given(
    st.dictionaries(
        st.sampled_from(["task_uuid", "function_uuid", "resource_specification", "result_serializers"]),
        st.none() | st.text() | st.integers() | st.binary() | st.lists(st.text()) | st.uuids().map(str),
    )
)
def test_any_headers_are_read_or_refused(headers: dict[str, Any]) -> None:
    try:
        TaskHeaders.parse(headers)
    except HeadersRefused as refusal:
        assert refusal.failure.reason
