"""What a manager leaves for the next one."""

from __future__ import annotations

import pytest

from endpoint.manager.commands import Recipient, Requester, StartRequest
from endpoint.manager.note import Note
from endpoint.wire.queues import Registration

ID = "22222222-2222-4222-8222-222222222222"
CREDS = {
    "endpoint_id": ID,
    "heartbeat_queue_info": {
        "connection_url": "amqp://user:hunter2@broker/",
        "queue": "beats",
        "queue_publish_kwargs": {"exchange": "", "routing_key": "beats"},
    },
}


def request() -> StartRequest:
    recipient = Recipient(ID, Registration.parse(CREDS).heartbeat)
    return StartRequest("uep.a", Requester("alice@example.org", "x", ()), recipient, CREDS)


def test_the_next_manager_knows_whom_to_tell_and_with_which_key():
    note = Note.from_text(Note.of(request(), "key").to_text())
    again = note.request("uep.a", None)

    assert note.enckey == "key"
    assert again.recipient == request().recipient
    assert again.requester.username == "alice@example.org"


def test_its_secrets_are_not_shown():
    assert "hunter2" not in repr(Note.of(request(), "secret-key")) + repr(request())
    assert "secret-key" not in repr(Note.of(request(), "secret-key"))


@pytest.mark.parametrize("text", ["", "{}", "[]", "1", "{", '{"endpoint_id": 1}', "[" * 10_000])
def test_a_text_that_is_no_note_is_refused(text):
    with pytest.raises(ValueError):
        Note.from_text(text)


def test_a_note_without_a_usable_queue_is_refused():
    with pytest.raises(ValueError):
        Note(ID, "alice", {"connection_url": "nonsense"}, "key").request("uep.a", None)
