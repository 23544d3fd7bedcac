"""Secrets and access tokens: random, shown once, kept as hashes.

Both are 256 random bits, or what somebody's generator has made (clients.py). There is no list of likely values that
somebody with the hashes could try, so a slow hash would add nothing but work for each request; both use SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from endpoint.hub.models import Identity, Token
from endpoint.hub.refusals import Refusal
from endpoint.hub.store import Store

COMPUTE_SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
COMPUTE = "funcx_service"
AUTH = "auth.globus.org"
AUTH_SCOPE_PREFIX = f"urn:globus:auth:scope:{AUTH}:"
OPENID_SCOPES = frozenset({"openid", "email", "profile"})
MAX_SCOPES = 64


def new_secret() -> str:
    """A fresh secret or token."""
    return secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """What is kept of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def matches(secret: str, kept: str) -> bool:
    """Whether `kept` is the hash of `secret`, in constant time."""
    return hmac.compare_digest(hash_of(secret), kept)


@dataclass(frozen=True)
class Issued:
    """One token of a token answer; the only time that it is in clear."""

    token: str
    resource_server: str
    scope: str
    expires_in: int


def by_resource_server(scope: str) -> dict[str, list[str]]:
    """The scopes of a request, ordered by the server that they are for; raises Refusal for an unknown one."""
    wanted: dict[str, list[str]] = {}
    for word in _words(scope):
        if word == COMPUTE_SCOPE:
            server = COMPUTE
        elif word in OPENID_SCOPES or word.startswith(AUTH_SCOPE_PREFIX):
            server = AUTH
        else:
            raise Refusal(400, "UNKNOWN_SCOPE_ERROR", f"Unknown scope: {word[:200]}")
        known = wanted.setdefault(server, [])
        if word not in known:
            known.append(word)
    if not wanted:
        raise Refusal(400, "INVALID_SCOPE", "No scope was asked for")
    return wanted


def _words(scope: str) -> list[str]:
    # A scope may name the scopes that it depends on in brackets; this service has no such dependencies.
    words: list[str] = []
    depth = 0
    for part in scope.replace("[", " [ ").replace("]", " ] ").split():
        depth += (part == "[") - (part == "]")
        if depth == 0 and part != "]":
            words.append(part.lstrip("*"))
    if len(words) > MAX_SCOPES:
        raise Refusal(400, "INVALID_SCOPE", f"More than {MAX_SCOPES} scopes")
    return words


async def issue(store: Store, identity_id: str, client_id: str, scope: str, lifetime_s: int) -> list[Issued]:
    """One token per resource server that `scope` names, the Compute service's first."""
    async with store.writing() as session:
        return await issue_in(session, identity_id, client_id, scope, lifetime_s)


async def issue_in(
    session: AsyncSession, identity_id: str, client_id: str, scope: str, lifetime_s: int
) -> list[Issued]:
    """As `issue`, as a part of a transaction."""
    wanted = by_resource_server(scope)
    issued = [
        Issued(new_secret(), server, " ".join(wanted[server]), lifetime_s)
        for server in sorted(wanted, key=lambda server: server != COMPUTE)
    ]
    now = time.time()
    await session.execute(delete(Token).where(Token.expires < now))
    session.add_all(
        Token(
            hash=hash_of(one.token),
            identity_id=identity_id,
            client_id=client_id,
            resource_server=one.resource_server,
            scope=one.scope,
            issued=now,
            expires=now + lifetime_s,
        )
        for one in issued
    )
    return issued


async def look_up(store: Store, token: str) -> tuple[Token, Identity] | None:
    """A token that is good now, and whose it is."""
    async with store.reading() as session:
        query = select(Token, Identity).join(Identity, Identity.id == Token.identity_id)
        row = (await session.execute(query.where(Token.hash == hash_of(token), Token.expires > time.time()))).first()
    return None if row is None else (row[0], row[1])


async def revoke(store: Store, token: str, client_id: str) -> None:
    """Forget a token that was given to `client_id`."""
    async with store.writing() as session:
        await session.execute(delete(Token).where(Token.hash == hash_of(token), Token.client_id == client_id))
