"""The document that a manager hands to a user endpoint."""

from __future__ import annotations

import io
import json
import os

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from endpoint.engines.block_limits import BlockLimits
from endpoint.errors import ConfigError
from endpoint.user.document import Credentials, StartDocument

ENDPOINT_ID = "0b8a4e6e-5b0f-4f7e-9d2e-6c4e3f1a2b3c"


def registration(password: str = "first") -> dict:
    url = f"amqp://u:{password}@127.0.0.1:5672/%2F"
    publish = {"exchange": "x", "routing_key": "k", "mandatory": True, "properties": {"delivery_mode": 2}}
    return {
        "endpoint_id": ENDPOINT_ID,
        "task_queue_info": {"connection_url": url, "exchange": "t", "queue": "tasks"},
        "result_queue_info": {"connection_url": url, "queue": "results", "queue_publish_kwargs": publish},
        "heartbeat_queue_info": {"connection_url": url, "queue": "beats", "queue_publish_kwargs": publish},
    }


def document(**more) -> dict:
    return {"amqp_creds": registration(), "config": "engine: {}", "ep_info": {}, **more}


def read(value: object) -> StartDocument:
    return StartDocument.read(io.BytesIO(value if isinstance(value, bytes) else json.dumps(value).encode()))


def test_a_document_without_an_allow_list_limits_nothing():
    doc = read(document())

    assert (doc.limits_functions, doc.allowed_functions) == (False, None)


def test_an_empty_allow_list_is_a_limit():
    doc = read(document(allowed_functions=[]))

    assert (doc.limits_functions, doc.allowed_functions) == (True, ())


def test_limits_for_blocks_are_taken_over_and_an_official_manager_sets_none():
    told = read(document(block_limits={"max_blocks": 4, "max_blocks_per_minute": None}))

    assert told.block_limits == BlockLimits(max_blocks=4)
    assert read(document()).block_limits == BlockLimits()


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            b"",
            b"{",
            b"[]",
            b"null",
            {"config": "x"},
            document(ep_info=[]),
            document(mem_fd="3"),
            document(mem_fd=True),
        ),
        *(document(block_limits=wrong) for wrong in ({"max_blocks": 0}, {"max_blocks": "4"}, [1])),
    ],
)
def test_anything_else_is_a_configuration_error_with_a_hint(wrong):
    with pytest.raises(ConfigError) as caught:
        read(wrong)

    assert "globus-compute-endpoint start" in caught.value.failure.hint


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(raw):
    with pytest.raises(ConfigError):
        read(raw)


def test_a_document_never_shows_its_secrets():
    assert "s3cret-key" not in repr(read(document(enckey="s3cret-key", config="token: s3cret-key")))


def memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("credentials")
    os.pwrite(descriptor, content, 0)
    return descriptor


def test_renewed_credentials_are_read_and_broken_ones_are_not():
    key = Fernet.generate_key()
    descriptor = memory_file(b"")
    try:
        credentials = Credentials(read(document(mem_fd=descriptor, enckey=key.decode())), amqp_port=None)
        assert ":first@" in credentials.now().task.connection_url

        os.pwrite(descriptor, Fernet(key).encrypt(json.dumps({"amqp_creds": registration("second")}).encode()), 0)
        assert ":second@" in credentials.now().task.connection_url

        os.ftruncate(descriptor, 10)
        assert ":second@" in credentials.now().task.connection_url
    finally:
        os.close(descriptor)


def test_the_configured_port_replaces_the_one_of_the_registration():
    assert ":443/" in Credentials(read(document()), amqp_port=443).now().result.connection_url
