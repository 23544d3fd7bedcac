"""What a manager leaves with the monitor for each user endpoint, so that the next manager can go on with it.

It has secrets (the address of the heartbeat queue, the key of the credentials): the monitor keeps it where only root
can read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from endpoint.errors import UnexpectedAnswer
from endpoint.manager.commands import Recipient, Requester, StartRequest
from endpoint.wire.queues import Registration


@dataclass(frozen=True)
class Note:
    """heartbeat: the queue's description, as the service gave it. enckey: of the user endpoint's credentials."""

    endpoint_id: str
    username: str
    heartbeat: Mapping[str, Any] = field(repr=False)
    enckey: str = field(repr=False)

    @classmethod
    def of(cls, request: StartRequest, enckey: str) -> Note:
        """What to remember of a request."""
        heartbeat = request.amqp_creds["heartbeat_queue_info"]
        return cls(request.recipient.endpoint_id, request.requester.username, heartbeat, enckey)

    def to_text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Note:
        """Raises ValueError for a text that is no note."""
        try:
            note = cls(**json.loads(text))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"not a note of ours: {error}") from error
        if not all(isinstance(value, str) for value in (note.endpoint_id, note.username, note.enckey)):
            raise ValueError("not a note of ours: its fields are no texts")
        return note

    def request(self, name: str, amqp_port: int | None) -> StartRequest:
        """The former request as far as it is known: enough to tell its user of an end. Raises ValueError."""
        answer = {"endpoint_id": self.endpoint_id, "heartbeat_queue_info": self.heartbeat}
        try:
            registration = Registration.parse(answer, amqp_port)
        except UnexpectedAnswer as error:
            raise ValueError(error.failure.reason) from error
        recipient = Recipient(registration.endpoint_id, registration.heartbeat)
        return StartRequest(name, Requester(self.username, "", ()), recipient, amqp_creds={})
