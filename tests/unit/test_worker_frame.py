"""The worker's own frame code and the endpoint's codec are two readers and writers of the same bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.wire.codec import decode, encode
from endpoint.wire.messages import Actor, ErrorDetails, Result, Task, TaskState, Transition
from endpoint.worker.failures import CouldNotExecuteUserTaskError
from endpoint.worker.frame import read_task, write_result

TASK = "5f6a7c1e-95a2-4a3e-8e5b-6d8d5c7f0a11"
OTHER = "0d1c9c7e-1d4c-4a65-9a8e-0b9f1d2e3c44"
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts)
def test_the_worker_reads_what_the_endpoint_writes(buffer: str) -> None:
    assert read_task(encode(Task(TASK, buffer)), TASK) == buffer


@given(texts, st.none() | st.tuples(texts, texts), texts, st.integers(0, 2**63 - 1))
def test_the_worker_writes_the_very_bytes_that_the_endpoint_would(
    data: str, error: tuple[str, str] | None, version: str, timestamp: int
) -> None:
    transition = {"timestamp": timestamp, "state": "execution-start", "actor": "worker"}
    written = write_result(
        TASK,
        data,
        details={"os": version, "endpoint_id": None},
        statuses=[transition],
        error=None if error is None else {"code": error[0], "user_message": error[1]},
    )
    message = Result(
        TASK,
        data,
        {"os": version, "endpoint_id": None},
        None if error is None else ErrorDetails(*error),
        (Transition(timestamp, TaskState.EXECUTION_START, Actor.WORKER),),
    )
    assert written == encode(message)
    assert decode(written) == message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no message of protocol version 1: no bytes"),
        (b"\x02{}", "no message of protocol version 1: 027b7d"),
        (b"\x01\xff", "not JSON in UTF-8"),
        (b"\x01" + b"[" * 100_000, "not JSON in UTF-8"),
        (b"\x01[]", "not a task but 'None'"),
        (encode(Result(TASK, "")), "not a task but 'result'"),
        (b'\x01{"message_type":"task","data":[]}', "no task_buffer"),
        (b'\x01{"message_type":"task","data":{"task_buffer":7}}', "no task_buffer"),
        (encode(Task(OTHER, "")), f"names another task than its headers, which say {TASK}"),
        (b"\x01" + json.dumps({"message_type": "task", "data": {"task_buffer": ""}}).encode(), "another task"),
    ],
)
def test_what_is_no_task_is_refused_with_the_reason(body: bytes, said: str) -> None:
    with pytest.raises(CouldNotExecuteUserTaskError, match=said):
        read_task(body, TASK)
