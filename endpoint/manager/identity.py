"""Who may have a user endpoint here, and as which local user. Decisions only: nothing is started.

An endpoint without privileges runs everything as its owner, so it follows only commands that come from one of the
owner's own Globus identities. A multi-user endpoint follows its mapping file. What it decides here is the first word;
the monitor, which has the privileges, judges every account again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from endpoint.errors import EndpointError, MappingError
from endpoint.manager.commands import Refusal, Requester
from endpoint.manager.local_user import LocalUser, user_named
from endpoint.manager.mapping import IdentityMapping, MappingFile, identities_problem, read_mapping
from endpoint.manager.mapping_program import Programs
from endpoint.manager.mapping_refusals import AccountRefused, LookupFailed, NotMapped
from endpoint.manager.mapping_types import Hit

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0  # whether the mapping file has changed


class Policy(Protocol):
    """Decides for whom, and as whom, a user endpoint is started."""

    async def admit(self, requester: Requester) -> LocalUser:
        """The local user for `requester`; raises Refusal. May take seconds: others must not wait for it."""


class OwnerOnly:
    """Only the owner's identities; everything runs as the user that the manager runs as."""

    def __init__(self, owner: frozenset[str], user: LocalUser) -> None:
        self._owner = owner
        self._user = user

    async def admit(self, requester: Requester) -> LocalUser:
        """The owner, or Refusal."""
        if self._owner & requester.subjects:
            return self._user
        raise Refusal(
            f"This endpoint runs functions of its owner only, and {requester.username} is somebody else",
            hint="Use an endpoint of your own, or one that an administrator offers to several users",
            code="IDENTITY_NOT_ALLOWED",
        )


class Mapped:
    """Whoever the mapping file knows; runs as the local user that it names.

    allow_same_user: whether somebody may be the user that the manager runs as. Call `start` first, `close` last; keep
    `watch` running between them. Raises MappingError for a file that can't be used.
    """

    def __init__(self, path: Path, endpoint_id: str, *, allow_same_user: bool = False) -> None:
        self._path = path
        self._allow_same_user = allow_same_user
        self._programs = Programs(endpoint_id)
        self._seen = _look(path)
        self._mapping = IdentityMapping(read_mapping(path), self._programs)
        self._loading = asyncio.Lock()

    async def start(self) -> None:
        """Say which rules hold, and be ready for the first question."""
        self._say("The identity mapping", self._mapping.file)
        await self._mapping.start()

    async def close(self) -> None:
        """End what works for the mapping."""
        await self._mapping.close()

    async def admit(self, requester: Requester) -> LocalUser:
        """The local user for the first of the identities that is mapped, or Refusal."""
        if problem := identities_problem(requester.identity_set):
            raise NotMapped("The identities that a command names are too many or too large", detail=problem)
        async with self._mapping as mapping:
            hit = await mapping.find(requester.identity_set)
        if hit is None:
            raise NotMapped(
                f"This endpoint has no local account for {requester.username}",
                detail=f"{len(requester.identity_set)} identities were tried with {mapping.file} of {self._path}; see: "
                f"globus-compute-endpoint idmap explain --mapping {self._path} {requester.username}",
            )
        user = await asyncio.to_thread(local_user_of, hit, requester.username)
        if user.uid == os.getuid() and not self._allow_same_user:
            raise AccountRefused(
                f"{requester.username} is mapped to the account of the endpoint itself, which is not for users",
                detail=f"{hit} gives {user.name}, the user that the manager runs as",
                code="SAME_USER",
            )
        log.info("%s (%s) is the local user %s, by %s", requester.username, hit.identity, user.name, hit)
        return user

    async def reload(self) -> None:
        """Read the file again; keep to what was read before if it can't be used. Both are logged."""
        async with self._loading:
            self._seen = await asyncio.to_thread(_look, self._path)
            try:
                file = await asyncio.to_thread(read_mapping, self._path)
            except MappingError as error:
                self._keeps(error)
                return
            mapping = IdentityMapping(file, self._programs)
            try:
                await mapping.start()
            except LookupFailed as error:  # no process can be had: too many are there, or too little memory
                await mapping.close()
                self._keeps(error)
                return
            self._say(f"The identity mapping was read again; it had {self._mapping.file}, and now", file)
            old, self._mapping = self._mapping, mapping
            await old.retire()

    async def watch(self) -> None:
        """Read the file again whenever it has changed; for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                if await asyncio.to_thread(_look, self._path) != self._seen:
                    await self.reload()
            except Exception:
                log.exception("The identity mapping could not be read again: a fault of the manager")

    def _keeps(self, error: EndpointError) -> None:
        log.error(
            "The identity mapping stays as it was, with %s: %s",
            self._mapping.file,
            error.failure.for_admin(),
            extra=error.failure.fields,
        )

    def _say(self, what: str, file: MappingFile) -> None:
        log.info("%s has %s: %s", what, file, self._path)
        for warning in file.warnings:
            log.warning("%s", warning)


def local_user_of(hit: Hit, username: str) -> LocalUser:
    """The account that `hit` names, for the Globus user `username`. Raises AccountRefused."""
    try:
        user = replace(user_named(hit.output), matched_identity=hit.identity, mapped_by=str(hit))
    except MappingError as error:
        raise AccountRefused(
            f"{username} is mapped to a local account that this machine does not have",
            detail=f"{hit} gives {hit.output!r}. {error.failure.reason}",
            code="NO_SUCH_USER",
        ) from error
    if user.uid == 0:
        raise AccountRefused(
            f"{username} is mapped to the superuser's account, which is not for users",
            detail=f"{hit} gives {user.name}, whose user id is 0",
            code="ROOT_REFUSED",
        )
    return user


def _look(path: Path) -> tuple[int, ...]:
    """What changes when the file does; empty while it isn't there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
