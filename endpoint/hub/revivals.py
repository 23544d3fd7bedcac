"""User endpoints that have tasks and do not run any more: asked for again, as a submission would.

Without this, tasks in the queue of a user endpoint that died wait until its user submits again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import aliased

from endpoint.errors import EndpointError
from endpoint.hub.access import may_use
from endpoint.hub.models import Client, Endpoint, Identity, Person, Task
from endpoint.hub.presence import Presence
from endpoint.hub.refusals import StartRefused
from endpoint.hub.settings import HubSettings
from endpoint.hub.starts import StartRequest, Starts
from endpoint.hub.store import Store

log = logging.getLogger(__name__)

MOST_TRIES = 6
AT_ONCE = 50  # user endpoints asked for in one look


@dataclass(frozen=True)
class Tries:
    """How often a user endpoint was asked for again without a result since, and when last (seconds since the epoch)."""

    number: int
    last: float


@dataclass(frozen=True)
class _Waiting:
    """A user endpoint with tasks that have no result; `answered` is when another one got its result, 0 for none."""

    endpoint_id: str
    manager_id: str
    answered: float


def pause_s(tries: int, settings: HubSettings) -> float:
    """Seconds between a start command and the next, after so many tries; infinite when there will be none."""
    if tries >= MOST_TRIES:
        return math.inf
    return settings.refresh_start_s if tries == 0 else settings.start_wait_s * 2.0 ** (tries - 1)


class Revivals:
    """Looks for user endpoints that have to be started again.

    One is asked for when its manager is online, and it has ended: it said so, or its heartbeats are missing. The
    manager of one account does not wait for that: what it ran before it registered anew has gone with it. If not, a
    start command is no harm.
    """

    def __init__(self, settings: HubSettings, store: Store, presence: Presence, starts: Starts) -> None:
        self._settings = settings
        self._store = store
        self._presence = presence
        self._starts = starts
        self._tries: dict[str, Tries] = {}
        self._renewed: dict[str, float] = {}  # manager -> when it registered anew, in seconds since the epoch
        self._expected: set[str] = set()  # those of them that have not been heard of since
        self._soon = asyncio.Event()

    def renewed(self, manager_id: str) -> None:
        """The manager of one account has registered anew."""
        self._renewed[manager_id] = time.time()
        self._expected.add(manager_id)
        self._starts.renewed(manager_id)

    def note(self, endpoint_id: str) -> None:
        """A heartbeat has come."""
        if endpoint_id in self._expected:
            self._expected.discard(endpoint_id)
            self._soon.set()

    def forget(self, endpoint_id: str) -> None:
        """The endpoint is gone."""
        self._tries.pop(endpoint_id, None)
        self._renewed.pop(endpoint_id, None)
        self._expected.discard(endpoint_id)

    async def run(self) -> None:
        """Look every `revive_every_s` seconds, and when a manager is back, until cancelled."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._soon.wait(), self._settings.revive_every_s)
            self._soon.clear()
            try:
                await self.look()
            except (SQLAlchemyError, EndpointError) as error:
                log.error("User endpoints that have ended can't be asked for now: %s", error, exc_info=error)

    async def look(self) -> None:
        """Ask for what is due; raises Unavailable, NetworkFailure and the database's errors, and has then done less."""
        waiting = await self._with_tasks()
        answered = {one.endpoint_id: one.answered for one in waiting}
        # Those that have no tasks any more, or have given a result since, are as if they had never failed.
        self._tries = {one: tries for one, tries in self._tries.items() if tries.last > answered.get(one, math.inf)}
        due = [one.endpoint_id for one in waiting if self._is_due(one.endpoint_id, one.manager_id)][:AT_ONCE]
        if not due:
            return
        requests = await self._requests(due)
        for endpoint_id in due:
            request = requests.get(endpoint_id)
            if request is None:  # the user may not, or is gone, or the submission's runtime was not kept
                self._tries[endpoint_id] = Tries(MOST_TRIES, time.time())
            else:
                await self._revive(request)

    def _is_due(self, endpoint_id: str, manager_id: str) -> bool:
        if not self._presence.is_online(manager_id) or self._starts.is_awaited(endpoint_id):
            return False
        pause = pause_s(self._tries_of(endpoint_id), self._settings)
        if pause == math.inf:
            return False
        if self._went_with_manager(endpoint_id, manager_id):
            return True
        return self._presence.is_gone(endpoint_id) and self._starts.quiet_s(endpoint_id) >= pause

    def _tries_of(self, endpoint_id: str) -> int:
        return self._tries[endpoint_id].number if endpoint_id in self._tries else 0

    def _went_with_manager(self, endpoint_id: str, manager_id: str) -> bool:
        """Whether it was neither heard of nor asked for since its manager, which is there, registered anew."""
        since = self._renewed.get(manager_id)
        if since is None or manager_id in self._expected or self._starts.quiet_s(endpoint_id) < math.inf:
            return False
        beat = self._presence.last(endpoint_id)
        return beat is None or beat.at < since

    async def _revive(self, request: StartRequest) -> None:
        fields, number = {"endpoint": request.manager.id}, self._tries_of(request.endpoint_id) + 1
        last = "; if it fails, they wait for the next submission" if number == MOST_TRIES else ""
        log.info("User endpoint %s has ended, and has tasks (try %d)%s", request.name, number, last, extra=fields)
        try:
            await self._starts.ask(request)
        except StartRefused as error:
            log.warning("User endpoint %s can't be asked for: %s", request.name, error, extra=fields)
        self._tries[request.endpoint_id] = Tries(number, time.time())

    async def _with_tasks(self) -> list[_Waiting]:
        """The user endpoints that have tasks without a result."""
        busy = exists().where(Task.endpoint_id == Endpoint.id, Task.completed.is_(None))
        answered = select(func.max(Task.completed)).where(Task.endpoint_id == Endpoint.id).scalar_subquery()
        query = select(Endpoint.id, Endpoint.parent_id, answered).where(Endpoint.parent_id.is_not(None), busy)
        async with self._store.reading() as session:
            return [_Waiting(one, str(parent), newest or 0.0) for one, parent, newest in await session.execute(query)]

    async def _requests(self, endpoint_ids: Sequence[str]) -> dict[str, StartRequest]:
        """The requests for those of them that can be asked for: their owners still have accounts, and may use them."""
        manager = aliased(Endpoint)
        known = or_(exists().where(Client.id == Endpoint.owner_id), exists().where(Person.id == Endpoint.owner_id))
        query = (
            select(Endpoint, manager, Identity)
            .join(manager, manager.id == Endpoint.parent_id)
            .join(Identity, Identity.id == Endpoint.owner_id)
            .where(Endpoint.id.in_(endpoint_ids), known)
        )
        found: dict[str, StartRequest] = {}
        async with self._store.reading() as session:
            for row, parent, owner in await session.execute(query):
                request = StartRequest.kept(row, parent, owner)
                if request is not None and may_use(parent, owner.id):
                    found[row.id] = request
        return found
