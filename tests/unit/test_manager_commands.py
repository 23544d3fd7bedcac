"""Commands from the service: what is followed, and what is refused in which words."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.errors import Mender
from endpoint.manager.commands import MAX_COMMAND_BYTES, MAX_SKEW_S, Refusal, Requester, StartRequest, parse_command
from endpoint.manager.identity import OwnerOnly
from endpoint.manager.local_user import LocalUser

NOW = 1_800_000_000
OWNER = str(uuid.UUID(int=1))
USER_ENDPOINT = str(uuid.UUID(int=2))
TARGET = {"exchange": "beats", "routing_key": "b", "mandatory": True, "properties": {}}
BEATS = {"connection_url": "amqp://u:secret@broker:5672/", "queue": "b", "queue_publish_kwargs": TARGET}
CREDS = {"endpoint_id": USER_ENDPOINT, "heartbeat_queue_info": BEATS}


def command(**changes: Any) -> dict[str, Any]:
    document = {
        "command": "cmd_start_endpoint",
        "args": [],
        "kwargs": {"name": "uep.a.b", "user_opts": {"n": 1}, "user_runtime": {}, "amqp_creds": CREDS},
        "globus_username": "owner@example.org",
        "globus_effective_identity": OWNER,
        "globus_identity_set": [{"sub": OWNER, "username": "owner@example.org"}],
    }
    return document | changes


def with_kwargs(**changes: Any) -> dict[str, Any]:
    document = command()
    return document | {"kwargs": document["kwargs"] | changes}


def parse(
    document: Any, *, content_type: Any = "application/json", timestamp: Any = NOW, **kwargs: Any
) -> StartRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_command(body, content_type=content_type, timestamp=timestamp, now=NOW, **kwargs)


def refusal(document: Any, **kwargs: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(document, **kwargs)
    return caught.value


def test_a_start_command_becomes_a_request():
    request = parse(command())

    assert (request.name, request.args, request.user_opts) == ("uep.a.b", (), {"n": 1})
    assert request.requester.subjects == {OWNER}
    assert request.recipient.endpoint_id == USER_ENDPOINT


def test_a_request_never_shows_its_credentials():
    assert "secret" not in repr(parse(command()))


def test_a_request_without_options_has_none():
    request = parse(with_kwargs(user_opts=None, user_runtime=None))

    assert (request.user_opts, request.user_runtime) == ({}, {})


def test_the_configured_port_replaces_the_one_of_the_notices():
    request = parse(command(), amqp_port=443)

    assert request.recipient.heartbeat.connection_url == "amqp://u:secret@broker:443/"


@pytest.mark.parametrize("skew", [-MAX_SKEW_S, 0, MAX_SKEW_S])
def test_a_command_within_the_allowed_skew_is_followed(skew):
    assert parse(command(), timestamp=NOW + skew)


@pytest.mark.parametrize(("skew", "words"), [(-181, "181 s behind"), (181, "181 s ahead of")])
def test_a_command_of_another_time_is_refused_to_its_user(skew, words):
    refused = refusal(command(), timestamp=NOW + skew)

    assert (refused.failure.code, refused.failure.mender) == ("COMMAND_TOO_OLD", Mender.SERVICE)
    assert words in refused.failure.for_user()
    assert refused.recipient is not None


@pytest.mark.parametrize("timestamp", [None, "1800000000", True])
def test_a_command_without_a_timestamp_is_refused(timestamp):
    assert "no timestamp" in refusal(command(), timestamp=timestamp).failure.reason


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-python-serialize"])
def test_a_command_of_another_content_type_is_refused(content_type):
    assert "application/json" in refusal(command(), content_type=content_type).failure.reason


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"a": "\xed\xa0\x80"}'])
def test_a_body_that_is_no_json_object_is_refused(body):
    refused = refusal(body)

    assert refused.failure.code == "MALFORMED_COMMAND"
    assert refused.recipient is None


def test_a_huge_command_is_refused_unread():
    assert refusal(b"x" * (MAX_COMMAND_BYTES + 1)).failure.code == "COMMAND_TOO_LARGE"


@pytest.mark.parametrize("name", ["cmd_delete_everything", "_start_request", "", None, 7, ["cmd_start_endpoint"]])
def test_an_unknown_command_is_refused_to_its_user(name):
    refused = refusal(command(command=name))

    assert refused.failure.code == "UNKNOWN_COMMAND"
    assert refused.recipient is not None and refused.recipient.endpoint_id == USER_ENDPOINT


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "-c", "x" * 129, "a b", "a\nb", 5, None])
def test_a_name_that_cannot_be_a_directory_and_a_word_is_refused(name):
    assert refusal(with_kwargs(name=name)).failure.code == "MALFORMED_COMMAND"


@pytest.mark.parametrize(
    "changes",
    [
        {"kwargs": None},
        {"kwargs": []},
        {"args": "--debug"},
        {"args": ["x"] * 17},
        {"args": [1]},
        {"args": ["\0"]},
        {"globus_identity_set": None},
        {"globus_identity_set": ["me"]},
        {"globus_username": None},
        {"globus_effective_identity": ""},
    ],
)
def test_a_command_that_lacks_a_part_or_has_it_of_another_type_is_refused(changes):
    assert refusal(command(**changes)).failure.code == "MALFORMED_COMMAND"


@pytest.mark.parametrize("creds", [None, {}, {"endpoint_id": "x"}, CREDS | {"heartbeat_queue_info": {}}])
def test_a_command_without_usable_credentials_is_refused_and_nobody_is_told(creds):
    assert refusal(with_kwargs(amqp_creds=creds)).recipient is None


@pytest.mark.parametrize("changes", [{"user_opts": []}, {"user_opts": "x"}, {"user_runtime": 3}])
def test_options_that_are_no_object_are_refused(changes):
    assert refusal(with_kwargs(**changes)).failure.code == "MALFORMED_COMMAND"


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=300))
def test_whatever_bytes_come_the_answer_is_a_refusal(body):
    assert isinstance(refusal(body), Refusal)


@given(
    st.dictionaries(st.sampled_from([*command(), "else"]), ANY_JSON),
    st.dictionaries(st.sampled_from([*command()["kwargs"]]), ANY_JSON),
)
def test_whatever_json_comes_the_answer_is_a_request_or_a_refusal(changes, inner):
    try:
        parse(command(**({"kwargs": command()["kwargs"] | inner} | changes)))
    except Refusal as refused:
        assert refused.failure.for_user()


def requester(*subjects: str) -> Requester:
    return Requester("somebody@example.org", "irrelevant", tuple({"sub": subject} for subject in subjects))


ME = LocalUser(name="me", uid=1000, gid=1000, home=Path("/home/me"))


def test_the_owner_is_served_through_any_linked_identity():
    assert asyncio.run(OwnerOnly(frozenset({"a", "b"}), ME).admit(requester("x", "b"))) is ME


def test_somebody_else_is_refused_in_words_for_them():
    with pytest.raises(Refusal) as caught:
        asyncio.run(OwnerOnly(frozenset({"a"}), ME).admit(requester("x")))

    assert caught.value.failure.code == "IDENTITY_NOT_ALLOWED"
    assert "somebody@example.org" in caught.value.failure.for_user()


def test_an_identity_set_without_ids_is_nobody():
    with pytest.raises(Refusal):
        asyncio.run(OwnerOnly(frozenset({"a"}), ME).admit(Requester("x", "a", ({}, {"sub": None}))))
