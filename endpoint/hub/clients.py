"""Client identities: what stands behind GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from endpoint.errors import Stage, UsageError
from endpoint.hub.models import Client, Identity, Token
from endpoint.hub.people import check_account
from endpoint.hub.store import Store
from endpoint.hub.tokens import hash_of, matches, new_secret

CLIENT_DOMAIN = "clients.auth.globus.org"
MAX_NAME = 256
SECRET = re.compile(r"[!-~]{16,256}")
DIFFERENT_LETTERS = 8  # a secret is made by a generator, never thought up: only its plain hash is kept
_NOBODY = hash_of("nobody")


@dataclass(frozen=True)
class ClientEntry:
    """One line of the list of clients."""

    id: str
    name: str
    username: str
    created: float


@dataclass(frozen=True)
class Wanted:
    """A client as somebody wants it. None: made up for a new client, and left as it is for one that is there."""

    name: str
    id: str | None = None
    username: str | None = None
    secret: str | None = None


@dataclass(frozen=True)
class Kept:
    """A client as it is now. updated: what was changed of it. secret: only where it was made up just now."""

    id: str
    name: str
    username: str
    created: bool = False
    updated: tuple[str, ...] = ()
    secret: str | None = None

    @property
    def changed(self) -> bool:
        return self.created or bool(self.updated)


async def create_client(store: Store, name: str) -> tuple[str, str]:
    """Make a client identity called `name`: its id and its secret, which can't be shown again."""
    kept = await keep_client(store, Wanted(name))
    assert kept.secret is not None
    return kept.id, kept.secret


async def keep_client(store: Store, wanted: Wanted, *, change: bool = False) -> Kept:
    """See that there is a client as wanted: made where its id is new, changed (with `change`) where it differs.

    Another secret ends the tokens that the old one has got. Raises UsageError for what can't be a name, an id, a
    username or a secret, for another identity's username, and for a difference without `change`.
    """
    wanted = _checked(wanted)
    async with store.writing() as session:
        client = await session.get(Client, wanted.id)
        await _check_username(session, wanted)
        if client is None:
            return await _make(session, wanted)
        return await _compare(session, client, wanted, change=change)


def _checked(wanted: Wanted) -> Wanted:
    if not 0 < len(wanted.name) <= MAX_NAME or not wanted.name.isprintable():
        raise UsageError(f"A client's name has 1 to {MAX_NAME} printable characters", stage=Stage.HUB)
    if wanted.secret is not None:
        check_secret(wanted.secret)
    username = wanted.username
    if username is not None:
        username = username.lower()
        check_account(*username.partition("@")[::2])
    return Wanted(wanted.name, _uuid(wanted.id), username, wanted.secret)


def _uuid(given: str | None) -> str:
    try:
        return str(uuid.uuid4() if given is None else uuid.UUID(given))
    except ValueError as error:
        raise UsageError(f"A client's id is a UUID, and {given!r} is none", stage=Stage.HUB) from error


def check_secret(secret: str) -> None:
    """Raise UsageError for what is no secret, without repeating it."""
    if not SECRET.fullmatch(secret) or len(set(secret)) < DIFFERENT_LETTERS:
        raise UsageError(
            "A client's secret has 16 to 256 ASCII characters without spaces, "
            f"at least {DIFFERENT_LETTERS} different ones",
            hint="Let a generator make it: openssl rand -hex 32",
            stage=Stage.HUB,
            code="BAD_SECRET",
        )


async def _check_username(session: AsyncSession, wanted: Wanted) -> None:
    if wanted.username is None:
        return
    owner = await session.scalar(select(Identity.id).where(Identity.username == wanted.username))
    # The name of a client that is not there yet is taken as well: it would be that client to an identity mapping.
    reserved = wanted.username.endswith(f"@{CLIENT_DOMAIN}") and wanted.username != _own_username(str(wanted.id))
    if reserved or owner not in (None, wanted.id):
        raise UsageError(
            f"The username {wanted.username} belongs to another identity",
            hint="See: compute-hub client list, compute-hub user list",
            stage=Stage.HUB,
            code="USERNAME_TAKEN",
        )


async def _make(session: AsyncSession, wanted: Wanted) -> Kept:
    client_id, secret = str(wanted.id), wanted.secret or new_secret()
    username = wanted.username or _own_username(client_id)
    identity = await session.get(Identity, client_id)
    if identity is None:
        session.add(Identity(id=client_id, username=username, name=wanted.name))
    elif identity.username == _own_username(client_id):  # a client that was deleted; what it owned is its own again
        identity.username, identity.name = username, wanted.name
    else:
        raise UsageError(f"The id {client_id} is that of a person, or was", stage=Stage.HUB, code="ID_TAKEN")
    await session.flush()
    session.add(Client(id=client_id, name=wanted.name, secret_hash=hash_of(secret), created=time.time()))
    made_up = None if wanted.secret else secret
    return Kept(client_id, wanted.name, username, created=True, secret=made_up)


async def _compare(session: AsyncSession, client: Client, wanted: Wanted, *, change: bool) -> Kept:
    identity = await session.get_one(Identity, client.id)
    new_secret_given = wanted.secret is not None and not matches(wanted.secret, client.secret_hash)
    differs = {
        "name": wanted.name != client.name,
        "username": wanted.username not in (None, identity.username),
        "secret": new_secret_given,
    }
    updated = tuple(what for what, other in differs.items() if other)
    if updated and not change:
        raise UsageError(
            f"There is a client {client.id} already, with another {' and another '.join(updated)}",
            hint="Add --update to change it",
            stage=Stage.HUB,
            code="CLIENT_DIFFERS",
        )
    client.name = identity.name = wanted.name
    identity.username = wanted.username or identity.username
    if new_secret_given:
        client.secret_hash = hash_of(str(wanted.secret))
        await session.execute(delete(Token).where(Token.client_id == client.id))
    return Kept(client.id, client.name, identity.username, updated=updated)


def _own_username(client_id: str) -> str:
    return f"{client_id}@{CLIENT_DOMAIN}"


async def list_clients(store: Store) -> list[ClientEntry]:
    """The clients, oldest first."""
    async with store.reading() as session:
        query = select(Client, Identity.username).join(Identity).order_by(Client.created, Client.id)
        return [
            ClientEntry(client.id, client.name, username, client.created)
            for client, username in (await session.execute(query)).all()
        ]


async def delete_client(store: Store, client_id: str) -> bool:
    """Take a client's credentials and tokens away; what it owns stays. False when there is no such client.

    A username of its own is free again.
    """
    async with store.writing() as session:
        await session.execute(delete(Token).where(Token.client_id == client_id))
        gone = await session.execute(delete(Client).where(Client.id == client_id).returning(Client.id))
        if gone.first() is None:
            return False
        free = update(Identity).where(Identity.id == client_id).values(username=_own_username(client_id))
        await session.execute(free)
        return True


async def check_client(store: Store, client_id: str, secret: str) -> Client | None:
    """The client, if the secret is its own."""
    async with store.reading() as session:
        client = await session.get(Client, client_id)
    good = matches(secret, _NOBODY if client is None else client.secret_hash)
    return client if good else None


async def has_secret(store: Store, client_id: str) -> bool:
    """Whether it is the id of a client identity of this hub, which has to prove its secret."""
    async with store.reading() as session:
        return await session.get(Client, client_id) is not None
