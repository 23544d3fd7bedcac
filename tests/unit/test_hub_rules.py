"""The hub's rules that need neither database nor broker."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.errors import EndpointError
from endpoint.hub.access import may_use
from endpoint.hub.app import AbsoluteForm
from endpoint.hub.bounds import fits
from endpoint.hub.functions import pack, packed_code
from endpoint.hub.models import Endpoint
from endpoint.hub.presence import Heartbeat
from endpoint.hub.refusals import FailureNotice, Refusal
from endpoint.hub.rest import Caller, Fields
from endpoint.hub.starts import StartRequest
from endpoint.hub.tokens import AUTH, COMPUTE, COMPUTE_SCOPE, by_resource_server, hash_of, matches, new_secret

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def request(**changed: object) -> StartRequest:
    manager = Endpoint(id=str(uuid.UUID(int=1)), owner_id="o", name="n", admins=[])
    caller = Caller("someone", "someone@x", "Some One", None, None)
    values = {"manager": manager, "caller": caller, "user_options": {}, "user_runtime": {}, **changed}
    return StartRequest(**values)


@given(options=st.dictionaries(st.text(), json_values), runtime=st.dictionaries(st.text(), json_values))
def test_a_user_endpoints_id_depends_on_values_and_not_on_their_order(options, runtime):
    turned = dict(reversed(options.items()))
    one, other = (request(user_options=each, user_runtime=runtime).endpoint_id for each in (options, turned))
    assert one == other == str(uuid.UUID(one))


def test_a_user_endpoints_id_differs_by_manager_user_options_and_runtime():
    other_manager = Endpoint(id=str(uuid.UUID(int=2)), owner_id="o", name="n", admins=[])
    ids = {
        request().endpoint_id,
        request(manager=other_manager).endpoint_id,
        request(caller=Caller("another", "a", "a", None, None)).endpoint_id,
        request(user_options={"a": 1}).endpoint_id,
        request(user_options={"a": "1"}).endpoint_id,
        request(user_runtime={"a": 1}).endpoint_id,
    }
    assert len(ids) == 6


@pytest.mark.parametrize(
    ("report", "alive"),
    [
        ({}, True),
        ({"heartbeat_period": 30}, True),
        ({"heartbeat_period": 30, "active": True}, True),
        ({"heartbeat_period": 30, "active": False}, False),
        ({"heartbeat_period": 0}, False),
        ({"heartbeat_period": 3, "error": "no"}, False),
        ({"heartbeat_period": "soon"}, True),
        ({"heartbeat_period": -1}, True),
        ({"heartbeat_period": 1e300}, True),
        ({"heartbeat_period": True}, True),
    ],
)
def test_a_heartbeat_says_whether_its_sender_goes_on(report, alive):
    beat = Heartbeat(time.time(), report)
    assert beat.alive is alive
    assert 0 <= beat.period <= 24 * 3600


@pytest.mark.parametrize(
    ("scope", "wanted"),
    [
        (COMPUTE_SCOPE, {COMPUTE: [COMPUTE_SCOPE]}),
        ("openid email openid", {AUTH: ["openid", "email"]}),
        (f"{COMPUTE_SCOPE}[a b[c] *d] openid", {COMPUTE: [COMPUTE_SCOPE], AUTH: ["openid"]}),
    ],
)
def test_scopes_are_ordered_by_their_servers(scope, wanted):
    assert by_resource_server(scope) == wanted


@given(st.text())
def test_any_scope_is_understood_or_refused(scope):
    try:
        assert by_resource_server(scope)
    except Refusal as refusal:
        assert refusal.status == 400


def test_secrets_are_long_different_and_match_their_own_hash_only():
    one, other = new_secret(), new_secret()
    assert min(len(one), len(other)) >= 43
    assert matches(one, hash_of(one))
    assert not matches(other, hash_of(one))
    assert one not in hash_of(one)


@given(st.text())
def test_a_packed_function_is_taken_and_a_cut_one_refused(buffer):
    packed = pack(buffer)
    assert packed_code("f", packed, serialized=True) == packed
    with pytest.raises(Refusal):
        packed_code("f", packed + "x", serialized=True)


@given(st.dictionaries(st.sampled_from(["a", "b"]), json_values))
def test_fields_are_taken_or_refused_with_a_status_whatever_they_are(doc):
    fields = Fields(doc)
    for name in ("a", "b", "c"):
        for take in (
            lambda name: fields.text(name),
            lambda name: fields.required_text(name),
            lambda name: fields.flag(name),
            lambda name: fields.uuid(name),
            lambda name: fields.uuids(name, limit=2),
            lambda name: fields.texts(name, limit=2),
            lambda name: fields.mapping(name, limit=20),
            lambda name: fields.items(name, limit=2),
        ):
            try:
                take(name)
            except Refusal as refusal:
                assert refusal.status == 422


def test_a_uuid_is_taken_in_any_usual_writing_and_kept_in_one():
    assert Fields({"a": "00000000-0000-0000-0000-00000000000A"}).uuid("a") == "00000000-0000-0000-0000-00000000000a"
    assert Fields({"a": None}).uuid("a") is None


def test_a_user_endpoint_is_for_the_user_that_it_was_started_for_only():
    child = Endpoint(id="c", parent_id="p", owner_id="user", admins=[], public=False, multi_user=False)
    assert may_use(child, "user")
    assert not may_use(child, "owner of the parent")


def test_a_failure_notice_is_shown_in_its_own_words_and_a_refusal_with_its_code():
    assert FailureNotice("Says the endpoint").shown == "Says the endpoint"
    assert Refusal(404, "X_NOT_FOUND", "There is no x").shown == "There is no x. [hub: X_NOT_FOUND]"
    assert isinstance(FailureNotice(""), EndpointError)


@pytest.mark.parametrize("depth", [1, 60, 64, 65, 500, 5000])
def test_what_is_nested_too_deeply_does_not_fit(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    assert fits(value, 1_000_000) is (depth < 64)


@given(json_values)
def test_what_fits_can_be_written_within_its_limit(value):
    length = len(json.dumps(value))
    assert fits(value, length)
    assert not fits(value, length - 1)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://localhost:5000/v2/version", "/v2/version"),
        ("http://localhost:5000", "/"),
        ("https://hub/v3/endpoints/x/submit", "/v3/endpoints/x/submit"),
        ("/v2/version", "/v2/version"),
        ("/http://x", "/http://x"),
    ],
)
def test_a_request_for_a_whole_url_is_one_for_its_path(target, path):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["path"])

    asyncio.run(AbsoluteForm(app)({"type": "http", "path": target}, None, None))
    assert seen == [path]
