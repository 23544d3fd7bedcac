"""The table of requests: what is in it passes, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from endpoint.privileged.channel import BadPacket, Packet, decode, encode
from endpoint.privileged.requests import LONGEST_NOTE, REQUESTS, BadRequest, Phase, checked
from endpoint.privileged.session import Session

START = {
    "request": "start",
    "name": "uep.1",
    "user": "her",
    "identity": "00000000-0000-4000-8000-000000000001",
    "identity_name": "her@example.org",
    "mapped_by": "document 1, rule 1",
    "note": "",
}


def refused(message: dict[str, Any], descriptors: tuple[int, ...] = (), phase: Phase = Phase.OPEN) -> str:
    with pytest.raises(BadRequest) as caught:
        checked(Packet(message, descriptors), phase)
    assert caught.value.exit_status == 76
    return str(caught.value)


def test_a_start_request_gives_its_fields() -> None:
    request, fields = checked(Packet(START, (7,)), Phase.OPEN)

    assert request is REQUESTS["start"]
    assert fields == {key: value for key, value in START.items() if key != "request"}


def test_nothing_but_hello_comes_first_and_hello_comes_once() -> None:
    for name in REQUESTS.keys() - {"hello"}:
        assert "out of turn" in refused({"request": name}, phase=Phase.GREETING)
    assert "out of turn" in refused({"request": "hello", "version": 1})


@pytest.mark.parametrize("kind", [None, 1, [], {}, "", "Start", "exec", "handler"])
def test_a_request_that_is_not_in_the_table_is_refused(kind: object) -> None:
    assert "not in the table" in refused({"request": kind})


def test_a_field_too_many_or_too_few_is_refused() -> None:
    assert "other fields" in refused({**START, "uid": 0}, (7,))
    assert "other fields" in refused({key: value for key, value in START.items() if key != "note"}, (7,))


@pytest.mark.parametrize("descriptors", [(), (7, 8)])
def test_a_descriptor_too_many_or_too_few_is_refused(descriptors: tuple[int, ...]) -> None:
    assert "descriptors" in refused(START, descriptors)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "x" * 129, "a\0", "a\n", 1, None, ["a"]])
def test_a_name_that_could_be_a_path_or_an_option_is_refused(name: object) -> None:
    assert "name" in refused({**START, "name": name}, (7,))


@pytest.mark.parametrize("field", ["user", "identity", "identity_name", "mapped_by", "note"])
@pytest.mark.parametrize("value", [None, 1, True, [], {}, "\ud800", "é" * LONGEST_NOTE])
def test_a_text_must_be_a_text_of_a_bounded_length(field: str, value: object) -> None:
    assert field in refused({**START, field: value}, (7,))


@pytest.mark.parametrize("version", [0, 2, "1", True, 1.0, None])
def test_only_version_1_is_greeted(version: object) -> None:
    assert "version" in refused({"request": "hello", "version": version}, phase=Phase.GREETING)


@pytest.mark.parametrize("signal", ["STOP", "HUP", 9, "", None, ["TERM"]])
def test_only_two_signals_can_be_sent(signal: object) -> None:
    assert "signal" in refused({"request": "signal", "name": "a", "signal": signal})


@pytest.mark.parametrize(
    "record", [None, [], "x", {"a": {}}, {"a": []}, {"A": 1}, {"": 1}, {"a": "x" * 5000}, {"a": 2**60}, {"a": "\ud800"}]
)
def test_a_record_is_a_flat_object_of_a_bounded_size(record: object) -> None:
    assert "record" in refused({"request": "audit", "record": record})


def test_every_request_has_a_handler() -> None:
    session = Session(None, None, None, print)  # type: ignore[arg-type]

    assert {request.handler for request in REQUESTS.values()} == set(session._handlers)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"[]",
        b'"x"',
        b"1",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"9" * 21 + b"}",
        b"[" * 60_000,
        b'{"a": ' * 10_000,
        b'{"a": 1} {}',
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_is_not_one_json_object_with_plain_numbers_is_no_packet(data: bytes) -> None:
    with pytest.raises(BadPacket):
        decode(data)


def test_a_message_is_what_it_was_on_the_other_side() -> None:
    message = {"a": "é\n\0", "b": [1, 2.5, None, True], "c": {"d": -1}}

    assert decode(encode(message)) == message
    assert json.loads(encode(message)) == message


def test_a_message_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(BadPacket):
        encode({"a": "x" * 65_536})
