"""What a person's login is made of: a code that is good once, then refresh tokens, one for each next access token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
import uuid
from dataclasses import dataclass, replace

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from endpoint.hub.models import Code, Identity, Person, RefreshToken, Token
from endpoint.hub.refusals import Refusal
from endpoint.hub.settings import HubSettings
from endpoint.hub.store import Store
from endpoint.hub.tokens import Issued, hash_of, issue_in, new_secret

CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64 for URLs: RFC 7636 (4.2)
MAX_LOGINS = 200  # refresh tokens of one person; the oldest give way


@dataclass(frozen=True)
class Authorization:
    """What a program asks a person for (RFC 6749 4.1.1, RFC 7636 4.3)."""

    client_id: str
    redirect_uri: str
    scope: str
    challenge: str
    offline: bool  # refresh tokens too
    nonce: str | None = None


@dataclass(frozen=True)
class Login:
    """What a code or a refresh token is worth: pairs of an access token and, if offline, a refresh token."""

    identity: Identity
    scope: str
    nonce: str | None
    tokens: list[tuple[Issued, str | None]]


def invalid_grant(reason: str) -> Refusal:
    """A code or a refresh token that is good for nothing."""
    return Refusal(400, "INVALID_GRANT", reason, hint="Log in again")


def meets_challenge(verifier: str, challenge: str) -> bool:
    """Whether the program that has `verifier` is the one that sent `challenge` (S256, RFC 7636 4.6)."""
    digest = hashlib.sha256(verifier.encode("utf-8", "surrogatepass")).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii"), challenge)


async def make_code(store: Store, settings: HubSettings, identity_id: str, asked: Authorization) -> str:
    """The code with which the program that asked gets the tokens of a person who has agreed."""
    code, now = new_secret(), time.time()
    async with store.writing() as session:
        await session.execute(delete(Code).where(Code.expires < now))
        session.add(
            Code(
                hash=hash_of(code),
                identity_id=identity_id,
                client_id=asked.client_id,
                redirect_uri=asked.redirect_uri,
                scope=asked.scope,
                challenge=asked.challenge,
                nonce=asked.nonce,
                offline=asked.offline,
                issued=now,
                expires=now + settings.code_lifetime_s,
            )
        )
    return code


async def redeem_code(
    store: Store, settings: HubSettings, code: str, *, client_id: str, verifier: str, redirect_uri: str
) -> Login:
    """The tokens for a code; Refusal for one that is unknown, old, used, or another program's.

    A code is spent by the first attempt, good or bad.
    """
    async with store.writing() as session:
        found = await session.get(Code, hash_of(code))
        if found is not None:
            await session.delete(found)
    if found is None or found.expires < time.time():
        raise invalid_grant("The code is wrong, used already, or too old")
    if (found.client_id, found.redirect_uri) != (client_id, redirect_uri):
        raise invalid_grant("The code was given to another program")
    if not meets_challenge(verifier, found.challenge):
        raise invalid_grant("The code was asked for by another process than this one")
    family = str(uuid.uuid4()) if found.offline else None
    async with store.writing() as session:
        return replace(
            await _issue(session, settings, found.identity_id, client_id, found.scope, family), nonce=found.nonce
        )


async def refresh(store: Store, settings: HubSettings, token: str, client_id: str) -> Login:
    """The next access token, and the next refresh token; the present one stays good for a while only.

    Refusal for one that is unknown, old, or another program's.
    """
    now = time.time()
    async with store.writing() as session:
        found = await session.get(RefreshToken, hash_of(token))
        if found is None or found.expires < now or found.client_id != client_id:
            raise invalid_grant("The refresh token is wrong, revoked, or too old")
        found.expires = min(found.expires, now + settings.refresh_overlap_s)
        return await _issue(session, settings, found.identity_id, client_id, found.scope, found.family)


async def _issue(
    session: AsyncSession, settings: HubSettings, identity_id: str, client_id: str, scope: str, family: str | None
) -> Login:
    identity = await session.get(Identity, identity_id)
    if identity is None or await session.get(Person, identity_id) is None:
        raise invalid_grant("There is no such person any more")
    issued = await issue_in(session, identity_id, client_id, scope, settings.token_lifetime_s)
    if family is None:
        return Login(identity, scope, None, [(one, None) for one in issued])
    now = time.time()
    pairs: list[tuple[Issued, str | None]] = []
    for one in issued:
        token = new_secret()
        pairs.append((one, token))
        session.add(
            RefreshToken(
                hash=hash_of(token),
                family=family,
                identity_id=identity_id,
                client_id=client_id,
                resource_server=one.resource_server,
                scope=one.scope,
                access_hash=hash_of(one.token),
                issued=now,
                expires=now + settings.refresh_lifetime_s,
            )
        )
    await session.flush()
    await _forget_oldest(session, identity_id, now)
    return Login(identity, scope, None, pairs)


async def _forget_oldest(session: AsyncSession, identity_id: str, now: float) -> None:
    mine = select(RefreshToken.hash).where(RefreshToken.identity_id == identity_id)
    kept = mine.where(RefreshToken.expires >= now).order_by(RefreshToken.issued.desc()).limit(MAX_LOGINS)
    await session.execute(
        delete(RefreshToken).where(RefreshToken.identity_id == identity_id, RefreshToken.hash.not_in(kept))
    )


async def look_up(store: Store, token: str) -> tuple[RefreshToken, Identity] | None:
    """A refresh token that is good now, and whose it is."""
    async with store.reading() as session:
        query = select(RefreshToken, Identity).join(Identity, Identity.id == RefreshToken.identity_id)
        good = query.where(RefreshToken.hash == hash_of(token), RefreshToken.expires > time.time())
        row = (await session.execute(good)).first()
    return None if row is None else (row[0], row[1])


async def revoke(store: Store, token: str, client_id: str) -> None:
    """Forget a refresh token that was given to `client_id`, with all that came before and after it in its login."""
    async with store.writing() as session:
        found = await session.get(RefreshToken, hash_of(token))
        if found is None or found.client_id != client_id:
            return
        same = (RefreshToken.family == found.family, RefreshToken.resource_server == found.resource_server)
        access = select(RefreshToken.access_hash).where(*same)
        await session.execute(delete(Token).where(Token.hash.in_(access)))
        await session.execute(delete(RefreshToken).where(*same))
