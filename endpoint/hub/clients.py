"""Client identities: what stands behind GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from sqlalchemy import delete, select

from endpoint.errors import UsageError
from endpoint.hub.models import Client, Identity, Token
from endpoint.hub.store import Store
from endpoint.hub.tokens import hash_of, matches, new_secret

CLIENT_DOMAIN = "clients.auth.globus.org"
MAX_NAME = 256
_NOBODY = hash_of("nobody")


@dataclass(frozen=True)
class ClientEntry:
    """One line of the list of clients."""

    id: str
    name: str
    username: str
    created: float


async def create_client(store: Store, name: str) -> tuple[str, str]:
    """Make a client identity called `name`: its id and its secret, which can't be shown again."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise UsageError(f"A client's name has 1 to {MAX_NAME} printable characters")
    client_id, secret = str(uuid.uuid4()), new_secret()
    async with store.writing() as session:
        session.add(Identity(id=client_id, username=f"{client_id}@{CLIENT_DOMAIN}", name=name))
        await session.flush()
        session.add(Client(id=client_id, name=name, secret_hash=hash_of(secret), created=time.time()))
    return client_id, secret


async def list_clients(store: Store) -> list[ClientEntry]:
    """The clients, oldest first."""
    async with store.reading() as session:
        query = select(Client, Identity.username).join(Identity).order_by(Client.created, Client.id)
        return [
            ClientEntry(client.id, client.name, username, client.created)
            for client, username in (await session.execute(query)).all()
        ]


async def delete_client(store: Store, client_id: str) -> bool:
    """Take a client's credentials and tokens away; what it owns stays. False when there is no such client."""
    async with store.writing() as session:
        await session.execute(delete(Token).where(Token.client_id == client_id))
        gone = await session.execute(delete(Client).where(Client.id == client_id).returning(Client.id))
        return gone.first() is not None


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
