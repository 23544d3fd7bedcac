"""For every message type, what one writes the other reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official_peer import Peer

from endpoint.wire.codec import decode, encode
from endpoint.wire.messages import (
    Actor,
    ErrorDetails,
    Message,
    Result,
    StatusReport,
    Task,
    TaskCancel,
    TaskState,
    Transition,
)

pytestmark = pytest.mark.compat

TASK = "5f6a7c1e-95a2-4a3e-8e5b-6d8d5c7f0a11"
CONTAINER = "0d1c9c7e-1d4c-4a65-9a8e-0b9f1d2e3c44"
EVERY_TRANSITION = tuple(
    Transition(1_700_000_000_000_000_000 + number, state, actor)
    for number, (state, actor) in enumerate((state, actor) for state in TaskState for actor in Actor)
)
IMAGE = {
    "image_type": "singularity",
    "location": "python:3.10",
    "created_at": 1,
    "modified_at": 2,
    "build_status": None,
    "build_stderr": None,
}
SAMPLES: dict[str, tuple[str, Message, dict[str, Any]]] = {
    "task": (
        "task",
        Task(TASK, "3\n01\n"),
        {"task_id": TASK, "task_buffer": "3\n01\n", "container_id": None, "container": None},
    ),
    "task with a container": (
        "task",
        Task(TASK, "é\u2028\x00", CONTAINER, {"container_id": CONTAINER, "name": "c", "images": [IMAGE]}),
        {
            "task_id": TASK,
            "task_buffer": "é\u2028\x00",
            "container_id": CONTAINER,
            "container": {"container_id": CONTAINER, "name": "c", "images": [IMAGE]},
        },
    ),
    "result": (
        "result",
        Result(TASK, "11\n1"),
        {"task_id": TASK, "data": "11\n1", "details": None, "error_details": None, "task_statuses": None},
    ),
    "failed result": (
        "result",
        Result(TASK, "Traceback ☃", {"os": "L", "n": [1, {}]}, ErrorDetails("C", "m"), EVERY_TRANSITION),
        {
            "task_id": TASK,
            "data": "Traceback ☃",
            "details": {"os": "L", "n": [1, {}]},
            "error_details": {"code": "C", "user_message": "m"},
            "task_statuses": [dict(vars(one)) for one in EVERY_TRANSITION],
        },
    ),
    "heartbeat": (
        "ep_status_report",
        StatusReport(TASK, {"managers": 1, "active": True, "error": None}, {CONTAINER: EVERY_TRANSITION[:2]}),
        {
            "endpoint_id": TASK,
            "global_state": {"managers": 1, "active": True, "error": None},
            "task_statuses": {CONTAINER: [dict(vars(one)) for one in EVERY_TRANSITION[:2]]},
        },
    ),
    "cancel": ("task_cancel", TaskCancel(TASK), {"task_id": TASK}),
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_official_reader_reads_what_we_write(peer: Peer, sample: str) -> None:
    kind, message, data = SAMPLES[sample]
    assert peer("unpack_message", encode(message).decode("latin-1")) == {"kind": kind, "data": data}


@pytest.mark.parametrize("sample", SAMPLES)
def test_we_read_what_the_official_writer_writes(peer: Peer, sample: str) -> None:
    kind, message, data = SAMPLES[sample]
    assert decode(peer("pack_message", kind, data).encode("latin-1")) == message


def test_we_read_a_heartbeat_under_its_alias_as_the_official_reader_does(peer: Peer) -> None:
    body = (
        b'\x01{"message_type":"ep_status_report","data":{"endpoint_id":"%s",'
        b'"ep_status_report":{"a":1},"task_statuses":{}}}' % TASK.encode()
    )
    assert decode(body) == StatusReport(TASK, {"a": 1}, {})
    assert peer("unpack_message", body.decode())["data"]["global_state"] == {"a": 1}


@settings(max_examples=50)
@given(data=st.text(), details=st.none() | st.dictionaries(st.text(), st.integers(-(2**53), 2**53) | st.text()))
def test_any_text_survives_both_ways(peer: Peer, data: str, details: dict[str, Any] | None) -> None:
    message = Result(TASK, data, details)
    read = peer("unpack_message", encode(message).decode("latin-1"))["data"]
    assert (read["data"], read["details"]) == (data, details)
    assert decode(peer("pack_message", "result", read).encode("latin-1")) == message
