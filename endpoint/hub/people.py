"""People: accounts with a name and a password, who log in with a browser."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from endpoint.errors import Stage, UsageError
from endpoint.hub.attempts import Attempts
from endpoint.hub.models import Code, Identity, Person, RefreshToken, Token
from endpoint.hub.passwords import NOBODY, check_new_password, hash_password, is_password
from endpoint.hub.refusals import Refusal
from endpoint.hub.store import Store

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
DOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
MAX_TEXT = 256
AT_ONCE = 2  # passwords that are looked at in the same moment; each takes a core and 32 MiB
WAITING = 32  # and so many more may wait for it


@dataclass(frozen=True)
class PersonEntry:
    """One line of the list of people."""

    id: str
    name: str
    username: str
    full_name: str
    email: str | None
    created: float


def check_account(name: str, domain: str, *texts: str) -> None:
    """Raise UsageError for what can't be a name (in lower case), a domain, or one of the other texts of an account."""
    if not NAME.fullmatch(name):
        raise _bad(f"{name!r} can't be a name: use 1 to 64 of a-z, 0-9, `.`, `_` and `-`, the first a letter or digit")
    if not DOMAIN.fullmatch(domain):
        raise _bad(f"{domain!r} is not a domain")
    if any(len(text) > MAX_TEXT or not text.isprintable() for text in texts):
        raise _bad(f"A full name and an e-mail address have at most {MAX_TEXT} printable characters")


async def create_person(
    store: Store, name: str, password: str, *, domain: str, full_name: str = "", email: str | None = None
) -> PersonEntry:
    """Make the account `name`, whose username is NAME@DOMAIN. UsageError when the name or the password won't do."""
    name, domain = name.lower(), domain.lower()
    check_account(name, domain, full_name, email or "")
    check_new_password(password, name)
    kept = await asyncio.to_thread(hash_password, password)
    entry = PersonEntry(str(uuid.uuid4()), name, f"{name}@{domain}", full_name or name, email, time.time())
    async with store.writing() as session:
        taken = (
            select(Identity.id).outerjoin(Person).where((Person.name == name) | (Identity.username == entry.username))
        )
        if (await session.scalars(taken)).first() is not None:
            raise _bad(f"There is a {name!r} already")
        session.add(Identity(id=entry.id, username=entry.username, name=entry.full_name, email=email))
        await session.flush()
        session.add(Person(id=entry.id, name=name, password=kept, created=entry.created))
    return entry


async def list_people(store: Store) -> list[PersonEntry]:
    """The people, by name."""
    async with store.reading() as session:
        rows = (await session.execute(select(Person, Identity).join(Identity).order_by(Person.name))).all()
    return [PersonEntry(one.id, one.name, who.username, who.name, who.email, one.created) for one, who in rows]


async def delete_person(store: Store, name: str) -> str:
    """Delete an account and all of its logins; returns its identity, to which what it owns still belongs.

    The identity gives its username up: who gets the name next is somebody else.
    """
    async with store.writing() as session:
        person = await _named(session, name)
        await _log_out(session, person.id)
        await session.execute(delete(Person).where(Person.id == person.id))
        gone = f"{person.id}@deleted.invalid"
        await session.execute(update(Identity).where(Identity.id == person.id).values(username=gone))
        return person.id


async def set_password(store: Store, name: str, password: str) -> str:
    """Change a password, and end all logins that were made with the old one; returns the identity."""
    check_new_password(password, name)
    kept = await asyncio.to_thread(hash_password, password)
    async with store.writing() as session:
        person = await _named(session, name)
        await session.execute(update(Person).where(Person.id == person.id).values(password=kept))
        await _log_out(session, person.id)
        return person.id


async def find_person(store: Store, name: str) -> str:
    """The identity of the person called `name`; UsageError when there is none."""
    async with store.reading() as session:
        return (await _named(session, name)).id


async def _named(session: AsyncSession, name: str) -> Person:
    person = (await session.scalars(select(Person).where(Person.name == name.lower()))).first()
    if person is None:
        raise UsageError(f"There is no user {name!r}", hint="See: compute-hub user list", stage=Stage.HUB)
    return person


async def _log_out(session: AsyncSession, identity_id: str) -> None:
    for table in (Token, RefreshToken, Code):
        await session.execute(delete(table).where(table.identity_id == identity_id))


def _bad(problem: str) -> UsageError:
    return UsageError(problem, stage=Stage.HUB, code="BAD_NAME")


class SignIns:
    """Looks at passwords: a few at the same time, and not too many of one account."""

    def __init__(self, store: Store, attempts: Attempts | None = None) -> None:
        self._store = store
        self._attempts = attempts or Attempts()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def sign_in(self, name: str, password: str) -> str | None:
        """The identity of the person with this name (or username) and password; None when there is none.

        Refusal (429) when there were too many attempts for this name, or there are too many at the moment.
        """
        name = name.strip().lower()
        account = name if len(name) <= MAX_TEXT else ""
        if self._waiting >= WAITING:
            raise Refusal(429, "TOO_MANY_LOGINS", "Too many people sign in at the moment", hint="Try again soon")
        if wait := self._attempts.begin(await self._account(account)):
            raise Refusal(
                429,
                "TOO_MANY_ATTEMPTS",
                f"There were too many attempts for this name; the next one is possible in {int(wait) + 1} seconds",
            )
        self._waiting += 1
        try:
            async with self._slots:
                return await self._check(account, password)
        finally:
            self._waiting -= 1

    async def _account(self, name: str) -> str:
        """One name for each account: the name and the username of a person are the same account."""
        person = await self._find(name)
        return name if person is None else person.name

    async def _check(self, name: str, password: str) -> str | None:
        person = await self._find(name)
        kept = NOBODY if person is None else person.password
        good = await asyncio.to_thread(is_password, password, kept)
        if person is None:  # what was typed isn't logged: it may be a password in the wrong field
            log.warning("Somebody tried to sign in with a name that nobody has")
            return None
        if not good:
            log.warning("A wrong password was given for %s", person.name)
            return None
        self._attempts.succeeded(person.name)
        log.info("%s signed in", person.name)
        return person.id

    async def _find(self, name: str) -> Person | None:
        query = select(Person).join(Identity).where((Person.name == name) | (Identity.username == name))
        async with self._store.reading() as session:
            return (await session.scalars(query)).first()
