"""Requests and answers: bodies that are read with a bound and checked, errors in one JSON form, the caller."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from endpoint.errors import EndpointError, Failure, Mender, Stage
from endpoint.hub import tokens
from endpoint.hub.bounds import fits
from endpoint.hub.models import Identity
from endpoint.hub.refusals import Refusal, invalid, malformed, too_large, unauthenticated

if TYPE_CHECKING:
    from endpoint.hub.service import Hub

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


def hub_of(request: Request) -> Hub:
    """The service that this request came to."""
    hub: Hub = request.app.state.hub
    return hub


# ---- errors ----


def error_answer(
    failure: Failure, status: int, *, shown: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A failure as clients of the service read it: `code` and `reason`.

    `message` is what globus-sdk shows, `error` what OAuth clients look for.
    """
    shown = shown or failure.for_user()
    plain = failure.to_dict()
    plain.pop("detail")
    return JSONResponse(
        {
            "status": "Failed",
            "code": failure.code,
            "error": failure.code.lower(),
            "reason": shown,
            "message": shown,
            "error_args": [],
            "http_status_code": status,
            "failure": plain,
        },
        status_code=status,
        headers=headers,
    )


async def on_endpoint_error(_request: Request, error: Exception) -> Response:
    """Our own errors: a refusal has its status, anything else of ours is the hub's fault."""
    assert isinstance(error, EndpointError)
    if isinstance(error, Refusal):
        return error_answer(error.failure, error.status, shown=error.shown)
    log.error("%s", error.failure.for_admin(), extra={"stage": error.failure.stage.value, "code": error.failure.code})
    return error_answer(error.failure, 503 if error.failure.retry else 500)


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """What the framework refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "REQUEST_MALFORMED")
    failure = Failure(stage=Stage.HUB, code=code, reason=str(error.detail), mender=Mender.USER)
    return error_answer(failure, error.status_code, headers=error.headers)


async def on_unexpected(request: Request, error: Exception) -> Response:
    """A defect of ours: the same form as any failure, and the traceback in the log."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    reason = "The service failed in a way that it does not know"
    failure = Failure(stage=Stage.HUB, code="INTERNAL_ERROR", reason=reason, mender=Mender.SERVICE, retry=True)
    return error_answer(failure, 500)


# ---- the caller ----


@dataclass(frozen=True)
class Caller:
    """Who makes a request."""

    id: str
    username: str
    name: str
    email: str | None
    organization: str | None

    @classmethod
    def of(cls, identity: Identity) -> Caller:
        return cls(identity.id, identity.username, identity.name, identity.email, identity.organization)


async def caller_of(request: Request, resource_server: str = tokens.COMPUTE) -> Caller:
    """Whose bearer token it is; raises a 401 Refusal for none, or one that is not good for `resource_server`."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise unauthenticated("The request has no bearer token")
    found = await tokens.look_up(hub_of(request).store, token.strip())
    if found is None or found[0].resource_server != resource_server:
        raise unauthenticated("The bearer token is unknown, expired, or for another service")
    return Caller.of(found[1])


# ---- bodies ----


async def body_of(request: Request, limit: int) -> bytes:
    """The whole body; raises a 413 Refusal as soon as it is known to be over `limit` bytes."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and len(announced) < 20 and int(announced) > limit:
        raise too_large("The request", limit)
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large("The request", limit)
            parts.append(part)
    except ClientDisconnect as error:
        raise malformed("The request ended early") from error
    return b"".join(parts)


async def fields_of(request: Request, limit: int | None = None) -> Fields:
    """The JSON object in the body."""
    body = await body_of(request, hub_of(request).settings.max_body if limit is None else limit)
    try:
        doc = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise malformed(f"The body is not JSON: {error}") from error
    if not isinstance(doc, dict):
        raise malformed("The body is not a JSON object")
    return Fields(doc)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")


def id_in_path(request: Request, name: str = "id") -> str:
    """A uuid that is part of the path."""
    return _uuid(request.path_params[name], f"The id {str(request.path_params[name])[:100]!r}")


def _uuid(value: object, what: str) -> str:
    try:
        if not isinstance(value, str):
            raise ValueError
        return str(uuid.UUID(value))
    except ValueError:
        raise Refusal(422, "INVALID_UUID", f"{what} is not a uuid") from None


class Fields:
    """A JSON object whose fields are taken out with a check; unknown ones are left alone, null counts as absent."""

    def __init__(self, doc: Mapping[str, Any]) -> None:
        self._doc = doc

    def _get(self, name: str, kind: type | tuple[type, ...], what: str) -> Any:
        value = self._doc.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise invalid(f"`{name}` is not {what}")
        return value

    def raw(self, name: str) -> Any:
        """Whatever is there, unchecked."""
        return self._doc.get(name)

    def text(self, name: str, *, limit: int = 256) -> str | None:
        """A string of at most `limit` characters."""
        value = self._get(name, str, "a string")
        if value is not None:
            check_text(value, f"`{name}`", limit)
        return value  # type: ignore[no-any-return]

    def required_text(self, name: str, *, limit: int = 256) -> str:
        """A string with something in it."""
        value = self.text(name, limit=limit)
        if not value:
            raise invalid(f"`{name}` is missing or empty")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self._get(name, bool, "true or false")
        return default if value is None else bool(value)

    def uuid(self, name: str) -> str | None:
        """A uuid, in its usual writing."""
        value = self._doc.get(name)
        return None if value is None or value == "" else _uuid(value, f"`{name}`")

    def uuids(self, name: str, *, limit: int) -> list[str] | None:
        """A list of uuids, without repetitions; a single one is taken as a list of one."""
        value = self._get(name, (list, str), "a list of uuids")
        if value is None:
            return None
        values = [value] if isinstance(value, str) else value
        if len(values) > limit:
            raise invalid(f"`{name}` has more than {limit} entries")
        return list(dict.fromkeys(_uuid(one, f"An entry of `{name}`") for one in values))

    def texts(self, name: str, *, limit: int, length: int = 256) -> list[str] | None:
        """A list of strings."""
        values = self._get(name, list, "a list of strings")
        if values is None:
            return None
        if len(values) > limit:
            raise invalid(f"`{name}` has more than {limit} entries")
        for value in values:
            if not isinstance(value, str):
                raise invalid(f"`{name}` is not a list of strings")
            check_text(value, f"An entry of `{name}`", length)
        return list(values)

    def mapping(self, name: str, *, limit: int) -> dict[str, Any] | None:
        """An object whose JSON has at most `limit` characters."""
        value = self._get(name, dict, "an object")
        if value is None:
            return None
        if not fits(value, limit):
            raise invalid(f"`{name}` is larger than {limit} characters, or nested too deeply")
        return dict(value)

    def items(self, name: str, *, limit: int) -> list[Any]:
        """A list, still to be checked; empty when absent."""
        values = self._get(name, list, "a list") or []
        if len(values) > limit:
            raise invalid(f"`{name}` has more than {limit} entries")
        return list(values)


def check_text(value: str, what: str, limit: int) -> None:
    """Raise a Refusal for a string that is too long, or can't be written as UTF-8."""
    if len(value) > limit:
        raise invalid(f"{what} has more than {limit} characters")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise invalid(f"{what} has characters that are no text") from error
