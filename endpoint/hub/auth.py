"""The authorization service: tokens for clients and people, and who somebody is."""

from __future__ import annotations

import base64
import binascii
import time
import uuid
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from endpoint.hub import clients, logins, openid, tokens
from endpoint.hub.models import Client, Identity
from endpoint.hub.refusals import Refusal, malformed
from endpoint.hub.rest import Caller, body_of, caller_of, hub_of

MAX_FORM = 64 * 1024
MAX_IDS = 100
IDENTITY_PROVIDER = "8f9b2a5e-3a53-4b2b-9a6c-2f5d4f0c6d11"  # this hub, as the provider of its clients' identities
NO_STORE = {"Cache-Control": "no-store"}


def identity_document(identity: Identity | Caller) -> dict[str, Any]:
    """One identity, as it is in an identity set; `sub` and `id` are the same thing under two names."""
    return {
        "sub": identity.id,
        "id": identity.id,
        "username": identity.username,
        "name": identity.name,
        "email": identity.email,
        "organization": identity.organization,
        "identity_provider": IDENTITY_PROVIDER,
        "identity_provider_display_name": "Compute Hub",
        "identity_type": "login",
        "status": "used",
    }


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form in the body; the first value of one that is there more than once."""
    body = await body_of(request, MAX_FORM)
    try:
        values = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=64, errors="strict")
    except ValueError as error:
        raise malformed("The body is not a form") from error
    return {name: found[0] for name, found in values.items()}


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    kind, _, encoded = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return form.get("client_id", ""), form.get("client_secret", "")
    try:
        user, _, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise malformed("The basic authorization can't be read") from error
    return unquote_plus(user), unquote_plus(password)


async def _client(request: Request, form: dict[str, str]) -> Client:
    client_id, secret = _credentials(request, form)
    client = await clients.check_client(hub_of(request).store, client_id, secret)
    if client is None:
        raise Refusal(
            401,
            "INVALID_CLIENT",
            "The client id or the client secret is wrong",
            hint="Check GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET",
        )
    return client


async def _any_client(request: Request, form: dict[str, str]) -> str:
    """The id of a client that has proved its secret, or of a public one: a program on somebody's machine has none."""
    client_id, secret = _credentials(request, form)
    if not secret:
        client_id = checked_client_id(client_id)
        if not await clients.has_secret(hub_of(request).store, client_id):
            return client_id
    return (await _client(request, form)).id


def checked_client_id(client_id: str) -> str:
    """A client id in its usual writing. Any uuid is one: what protects a program without a secret is PKCE."""
    try:
        return str(uuid.UUID(client_id))
    except ValueError:
        raise Refusal(400, "INVALID_CLIENT", "The client id is not a uuid") from None


def _granted(one: tokens.Issued, refresh_token: str | None = None) -> dict[str, Any]:
    answer = {
        "access_token": one.token,
        "scope": one.scope,
        "resource_server": one.resource_server,
        "token_type": "Bearer",
        "expires_in": one.expires_in,
    }
    return answer if refresh_token is None else {**answer, "refresh_token": refresh_token}


async def _to_client(request: Request, form: dict[str, str]) -> dict[str, Any]:
    hub, client = hub_of(request), await _client(request, form)
    lifetime = hub.settings.token_lifetime_s
    first, *others = await tokens.issue(hub.store, client.id, client.id, form.get("scope", ""), lifetime)
    return {**_granted(first), "other_tokens": [_granted(one) for one in others]}


async def _to_person(request: Request, form: dict[str, str]) -> dict[str, Any]:
    hub, client_id = hub_of(request), await _any_client(request, form)
    login = await logins.redeem_code(
        hub.store,
        hub.settings,
        form.get("code", "").strip(),
        client_id=client_id,
        verifier=form.get("code_verifier", ""),
        redirect_uri=form.get("redirect_uri", ""),
    )
    first, *others = [_granted(*pair) for pair in login.tokens]
    answer = {**first, "other_tokens": others}
    if "openid" in login.scope.split():
        answer["id_token"] = await hub.signer.statement(
            login.identity, issuer=origin_of(request), client_id=client_id, scope=login.scope, nonce=login.nonce
        )
    return answer


async def _again(request: Request, form: dict[str, str]) -> dict[str, Any]:
    hub, client_id = hub_of(request), await _any_client(request, form)
    login = await logins.refresh(hub.store, hub.settings, form.get("refresh_token", ""), client_id)
    ((token, refresh_token),) = login.tokens
    return {**_granted(token, refresh_token), "other_tokens": []}


GRANTS = {"client_credentials": _to_client, "authorization_code": _to_person, "refresh_token": _again}


def origin_of(request: Request) -> str:
    """The service's URL as this caller has it, without a slash at the end."""
    return f"{request.url.scheme}://{request.url.netloc}"


async def token(request: Request) -> Response:
    """POST /v2/oauth2/token: one token per resource server asked for, the first in the answer itself."""
    form = await form_of(request)
    kind = form.get("grant_type", "")
    grant = GRANTS.get(kind)
    if grant is None:
        raise Refusal(400, "UNSUPPORTED_GRANT_TYPE", f"This service has no grant {kind[:100]!r}")
    return JSONResponse(await grant(request, form), headers=NO_STORE)


async def introspect(request: Request) -> Response:
    """POST /v2/oauth2/token/introspect: what a token is good for, and whose it is."""
    form = await form_of(request)
    await _client(request, form)
    store, told = hub_of(request).store, form.get("token", "")
    found = await tokens.look_up(store, told) or await logins.look_up(store, told)
    if found is None:
        return JSONResponse({"active": False}, headers=NO_STORE)
    kept, identity = found
    answer = {
        "active": True,
        "token_type": "Bearer",
        "scope": kept.scope,
        "client_id": kept.client_id,
        "sub": identity.id,
        "username": identity.username,
        "name": identity.name,
        "email": identity.email,
        "aud": [kept.resource_server, kept.client_id],
        "iat": int(kept.issued),
        "nbf": int(kept.issued),
        "exp": int(kept.expires),
    }
    include = form.get("include", "").split(",")
    if "identity_set" in include or "identities_set" in include:
        answer["identity_set" if "identity_set" in include else "identities_set"] = [identity.id]
    return JSONResponse(answer, headers=NO_STORE)


async def revoke(request: Request) -> Response:
    """POST /v2/oauth2/token/revoke: forget a token; one that is unknown already counts as forgotten."""
    form = await form_of(request)
    client_id, store, told = await _any_client(request, form), hub_of(request).store, form.get("token", "")
    await tokens.revoke(store, told, client_id)
    await logins.revoke(store, told, client_id)
    return JSONResponse({"active": False})


async def userinfo(request: Request) -> Response:
    """GET /v2/oauth2/userinfo: the caller, and the identities that are linked to the caller."""
    caller = await caller_of(request, tokens.AUTH)
    linked = {**identity_document(caller), "last_authentication": int(time.time())}
    return JSONResponse(
        {
            "sub": caller.id,
            "preferred_username": caller.username,
            "name": caller.name,
            "email": caller.email,
            "organization": caller.organization,
            "identity_provider": IDENTITY_PROVIDER,
            "identity_provider_display_name": "Compute Hub",
            "last_authentication": linked["last_authentication"],
            "identity_set": [linked],
        }
    )


async def identities(request: Request) -> Response:
    """GET /v2/api/identities?ids=... or ?usernames=...: those of them that there are."""
    await caller_of(request, tokens.AUTH)
    ids, names = (
        [word for text in request.query_params.getlist(name) for word in text.split(",") if word][: MAX_IDS + 1]
        for name in ("ids", "usernames")
    )
    if bool(ids) == bool(names) or max(len(ids), len(names)) > MAX_IDS:
        raise malformed(f"Give either `ids` or `usernames`, at most {MAX_IDS}")
    column = Identity.id if ids else Identity.username
    async with hub_of(request).store.reading() as session:
        query = select(Identity).where(column.in_([word.lower() for word in ids or names])).order_by(Identity.username)
        found = (await session.scalars(query)).all()
    return JSONResponse({"identities": [identity_document(one) for one in found]})


async def openid_configuration(request: Request) -> Response:
    """GET /.well-known/openid-configuration: where everything is."""
    return JSONResponse(openid.configuration(origin_of(request)))


async def keys(request: Request) -> Response:
    """GET /jwk.json: what verifies an `id_token`."""
    return JSONResponse({"keys": [await hub_of(request).signer.public()]}, headers=NO_STORE)


ROUTES = [
    Route("/.well-known/openid-configuration", openid_configuration, methods=["GET"]),
    Route("/jwk.json", keys, methods=["GET"]),
    Route("/v2/oauth2/token", token, methods=["POST"]),
    Route("/v2/oauth2/token/introspect", introspect, methods=["POST"]),
    Route("/v2/oauth2/token/revoke", revoke, methods=["POST"]),
    Route("/v2/oauth2/userinfo", userinfo, methods=["GET"]),
    Route("/v2/api/identities", identities, methods=["GET"]),
]
