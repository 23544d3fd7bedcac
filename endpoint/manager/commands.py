"""Commands from the web service: bytes and properties in, a `StartRequest` or a refusal out.

What may be asked is a closed table (`COMMANDS`); whatever is not in it is refused. Shapes: protocol.md, section 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from endpoint.config.paths import name_problem
from endpoint.errors import CommandRefused, UnexpectedAnswer
from endpoint.wire.queues import QueueInfo, Registration

MAX_COMMAND_BYTES = 10 * 1024 * 1024
MAX_SKEW_S = 180
MAX_ARGS = 16
MAX_ARG_CHARS = 1024
CONTENT_TYPE = "application/json"


@dataclass(frozen=True)
class Recipient:
    """Where a failure notice for a user endpoint goes: its id, and the heartbeat queue of its own credentials."""

    endpoint_id: str
    heartbeat: QueueInfo


@dataclass(frozen=True)
class Requester:
    """The Globus identities that a command was sent for, as the service states them."""

    username: str
    effective_identity: str
    identity_set: tuple[Mapping[str, Any], ...]

    @property
    def subjects(self) -> frozenset[str]:
        """The identities' ids."""
        return frozenset(str(identity["sub"]) for identity in self.identity_set if identity.get("sub"))


@dataclass(frozen=True)
class StartRequest:
    """`cmd_start_endpoint`: a user endpoint is wanted.

    amqp_creds is the registration answer as it came, for the user endpoint; recipient is what the manager needs of it.
    """

    name: str
    requester: Requester
    recipient: Recipient
    amqp_creds: Mapping[str, Any] = field(repr=False)
    args: tuple[str, ...] = ()
    user_opts: Mapping[str, Any] = field(default_factory=dict)
    user_runtime: Mapping[str, Any] = field(default_factory=dict)


class Refusal(CommandRefused):
    """A command that is not followed; `recipient` is who should be told, where that could be read."""

    def __init__(self, reason: str, *, recipient: Recipient | None = None, **kwargs: Any) -> None:
        super().__init__(reason, **kwargs)
        self.recipient = recipient


def parse_command(
    body: bytes, *, content_type: str | None, timestamp: Any, now: float, amqp_port: int | None = None
) -> StartRequest:
    """One message from the command queue.

    timestamp: the message's AMQP timestamp in seconds since the epoch. now: ours. amqp_port: replaces the port where
    notices go. Raises Refusal.
    """
    document = _document(body, content_type)
    kwargs = document.get("kwargs")
    recipient = _recipient(kwargs, amqp_port)
    try:
        _check_age(timestamp, now)
        command = document.get("command")
        parse = COMMANDS.get(command) if isinstance(command, str) else None
        if parse is None:
            raise Refusal(f"The endpoint knows no command {_shown(command)}", code="UNKNOWN_COMMAND")
        return parse(document, recipient)
    except Refusal as refusal:
        refusal.recipient = recipient
        raise


def _document(body: bytes, content_type: str | None) -> dict[str, Any]:
    if content_type != CONTENT_TYPE:
        raise Refusal(f"A command came as {_shown(content_type)} and not as {CONTENT_TYPE}", code="MALFORMED_COMMAND")
    if len(body) > MAX_COMMAND_BYTES:
        raise Refusal(
            f"A command of {len(body)} bytes is larger than the {MAX_COMMAND_BYTES} allowed", code="COMMAND_TOO_LARGE"
        )
    try:
        document = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise Refusal("A command is not JSON", detail=repr(error), code="MALFORMED_COMMAND") from error
    if not isinstance(document, dict):
        raise Refusal("A command is not a JSON object", code="MALFORMED_COMMAND")
    return document


def _recipient(kwargs: Any, amqp_port: int | None) -> Recipient | None:
    """Who can be told, as early as can be known: even a command that is wrong otherwise may have this part right."""
    creds = kwargs.get("amqp_creds") if isinstance(kwargs, dict) else None
    if not isinstance(creds, dict):
        return None
    try:
        registration = Registration.parse(creds, amqp_port)
    except UnexpectedAnswer:
        return None
    return Recipient(registration.endpoint_id, registration.heartbeat)


def _check_age(timestamp: Any, now: float) -> None:
    if isinstance(timestamp, bool) or not isinstance(timestamp, (int, float)):
        raise Refusal("A command has no timestamp", code="MALFORMED_COMMAND")
    skew = now - timestamp
    if abs(skew) > MAX_SKEW_S:
        relation = "behind" if skew > 0 else "ahead of"
        raise Refusal(
            f"The command's timestamp is {abs(skew):.0f} s {relation} the endpoint's clock; {MAX_SKEW_S} s are allowed",
            hint="The clock of the endpoint's host may be wrong, or the command waited too long: try again",
            code="COMMAND_TOO_OLD",
        )


def _start_request(document: Mapping[str, Any], recipient: Recipient | None) -> StartRequest:
    kwargs = _mapping(document, "kwargs")
    name = _text(kwargs, "name")
    if name_problem(name) or name.startswith("-"):  # it becomes a directory and a word of a command line
        raise Refusal(f"The name {_shown(name)} can't be a user endpoint's", code="MALFORMED_COMMAND")
    creds = _mapping(kwargs, "amqp_creds")
    if recipient is None:
        raise Refusal("A start command's amqp_creds can't be read", code="MALFORMED_COMMAND")
    return StartRequest(
        name=name,
        requester=_requester(document),
        recipient=recipient,
        amqp_creds=creds,
        args=_args(document),
        user_opts=_mapping(kwargs, "user_opts", optional=True),
        user_runtime=_mapping(kwargs, "user_runtime", optional=True),
    )


def _requester(document: Mapping[str, Any]) -> Requester:
    identity_set = document.get("globus_identity_set")
    if not isinstance(identity_set, list) or not all(isinstance(identity, dict) for identity in identity_set):
        raise Refusal("A command's globus_identity_set is not a list of identities", code="MALFORMED_COMMAND")
    return Requester(
        username=_text(document, "globus_username"),
        effective_identity=_text(document, "globus_effective_identity"),
        identity_set=tuple(identity_set),
    )


def _args(document: Mapping[str, Any]) -> tuple[str, ...]:
    args = document.get("args") or []
    if (
        not isinstance(args, list)
        or len(args) > MAX_ARGS
        or not all(isinstance(arg, str) and len(arg) <= MAX_ARG_CHARS and "\0" not in arg for arg in args)
    ):
        raise Refusal("A command's args are not a short list of texts", code="MALFORMED_COMMAND")
    return tuple(args)


def _mapping(document: Mapping[str, Any], key: str, *, optional: bool = False) -> dict[str, Any]:
    value = document.get(key)
    if value is None and optional:
        return {}
    if not isinstance(value, dict):
        raise Refusal(f"A command's {key} is not an object", code="MALFORMED_COMMAND")
    return value


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise Refusal(f"A command has no {key}", code="MALFORMED_COMMAND")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


COMMANDS: Mapping[str, Callable[[Mapping[str, Any], Recipient | None], StartRequest]] = {
    "cmd_start_endpoint": _start_request,
}
