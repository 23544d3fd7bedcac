from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.errors import MalformedMessage
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

TASK = "5f6a7c1e-95a2-4a3e-8e5b-6d8d5c7f0a11"

ids = st.uuids().map(str)
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, json_values, max_size=4)
transitions = st.builds(Transition, st.integers(0, 2**63 - 1), st.sampled_from(TaskState), st.sampled_from(Actor))
several = st.lists(transitions, max_size=3).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Task, ids, texts, st.none() | ids, st.none() | objects),
    st.builds(
        Result, ids, texts, st.none() | objects, st.none() | st.builds(ErrorDetails, texts, texts), st.none() | several
    ),
    st.builds(StatusReport, ids, objects, st.dictionaries(ids, several, max_size=3)),
    st.builds(TaskCancel, ids),
)


@given(messages)
def test_a_message_survives_its_bytes(message: Message) -> None:
    body = encode(message)
    assert decode(body) == message
    assert body[:1] == b"\x01"
    assert b"\n" not in body


def read_or_refused(body: bytes) -> None:
    try:
        message = decode(body)
    except MalformedMessage as error:
        assert error.raw == body[:256]
    else:
        assert decode(encode(message)) == message


@given(st.binary() | st.binary().map(lambda tail: b"\x01" + tail))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    read_or_refused(body)


@given(json_values)
def test_any_json_is_a_message_or_refused(value: Any) -> None:
    read_or_refused(b"\x01" + json.dumps(value).encode())


@given(st.sampled_from(["task", "result", "ep_status_report", "task_cancel"]), st.data())
def test_any_fields_are_a_message_or_refused(kind: str, data: st.DataObject) -> None:
    fields = ["task_id", "task_buffer", "container", "data", "details", "error_details", "task_statuses", "endpoint_id"]
    values = json_values | ids | st.just({"code": "C", "user_message": "m"}) | st.just([{"timestamp": 1}])
    chosen = data.draw(st.dictionaries(st.sampled_from([*fields, "global_state", "container_id"]), values))
    read_or_refused(b"\x01" + json.dumps({"message_type": kind, "data": chosen}).encode())


@given(messages, st.data())
def test_a_damaged_message_is_read_or_refused(message: Message, data: st.DataObject) -> None:
    body = bytearray(encode(message))
    position = data.draw(st.integers(0, len(body) - 1))
    body[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        decode(bytes(body))
    except MalformedMessage as error:
        assert error.failure.reason


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "without any bytes"),
        (b"\x02{}", "protocol version 2"),
        (b"{}", "protocol version 123"),
        (b"\x01", "not JSON"),
        (b"\x01\xff", "not JSON in UTF-8"),
        (b"\x01[]", "not a JSON object"),
        (b"\x01{}", "without a message_type"),
        (b'\x01{"message_type":"task"}', "a data object"),
        (b'\x01{"message_type":"container","data":{}}', "unknown type: 'container'"),
        (b'\x01{"message_type":"task","data":{}}', "without task_id"),
        (b'\x01{"message_type":"task","data":{"task_id":7,"task_buffer":""}}', "task_id is not a uuid: 7"),
        (b'\x01{"message_type":"task","data":{"task_id":"x","task_buffer":NaN}}', "NaN is not JSON"),
        (b'\x01{"a":' + b"[" * 100_000, "not JSON"),
        (b'\x01{"a":' + b"1" * 10_000 + b"}", "not JSON|message_type"),
    ],
)
def test_a_refusal_says_what_is_wrong(body: bytes, said: str) -> None:
    with pytest.raises(MalformedMessage, match=said) as refusal:
        decode(body)
    assert refusal.value.raw == body[:256]


def test_a_message_beyond_the_limit_is_refused_unread() -> None:
    body = encode(Task(TASK, "x" * 100))
    assert decode(body, limit=len(body)) == Task(TASK, "x" * 100)
    with pytest.raises(MalformedMessage, match=f"{len(body)} bytes, where 50 are the most"):
        decode(body, limit=50)


def test_unknown_fields_are_left_aside() -> None:
    data = {"task_id": TASK, "new": {"a": 1}}
    body = b"\x01" + json.dumps({"message_type": "task_cancel", "data": data, "more": 1}).encode()
    assert decode(body) == TaskCancel(TASK)


def test_ids_become_lower_case_uuids() -> None:
    assert TaskCancel(TASK.upper()).task_id == TASK
    assert uuid.UUID(TaskCancel(TASK).task_id)


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, "\ud800", b"x"])
def test_what_json_does_not_have_is_not_written(value: Any) -> None:
    with pytest.raises(MalformedMessage, match="can't be written"):
        encode(Result(TASK, "", {"value": value}))
