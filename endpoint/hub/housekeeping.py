"""What a hub forgets in time, so that a year of submissions does not stay with it for ever."""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy import ColumnElement, and_, delete, exists, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute

from endpoint.errors import EndpointError, Mender, Stage
from endpoint.hub.broker_admin import BrokerAdmin
from endpoint.hub.models import Cancellation, Code, Endpoint, Outgoing, RefreshToken, Task, TaskGroup, Token
from endpoint.hub.presence import Presence
from endpoint.hub.results import Results
from endpoint.hub.settings import HubSettings
from endpoint.hub.starts import Starts
from endpoint.hub.store import Store

log = logging.getLogger(__name__)

AT_ONCE = 500  # rows in one transaction: others write between two


class TaskExpired(EndpointError):
    """A task that nobody ran for as long as the hub keeps one."""

    mender = Mender.ADMIN
    stage = Stage.HUB
    code = "TASK_EXPIRED"


class Housekeeping:
    """Forgets results, groups, tokens and user endpoints that are older than the settings say."""

    def __init__(
        self,
        settings: HubSettings,
        store: Store,
        broker: BrokerAdmin,
        *,
        presence: Presence,
        results: Results,
        starts: Starts,
    ) -> None:
        self._settings = settings
        self._store = store
        self._broker = broker
        self._presence = presence
        self._results = results
        self._starts = starts

    async def run(self) -> None:
        """Tidy now, and again every `tidy_every_s` seconds, until cancelled."""
        while True:
            try:
                await self.tidy(time.time())
            except (SQLAlchemyError, EndpointError) as error:
                log.error("Old entries can't be removed now: %s", error, exc_info=error)
            await asyncio.sleep(self._settings.tidy_every_s)

    async def tidy(self, now: float) -> None:
        """Forget what is too old at `now` (seconds since the epoch)."""
        oldest = now - self._settings.keep_tasks_s
        removed = await self._delete(Task.id, Task.completed < oldest)
        removed += await self._delete(Cancellation.task_id, Cancellation.asked < oldest)
        waiting = exists(select(Task.id).where(Task.group_id == TaskGroup.id))
        removed += await self._delete(TaskGroup.id, and_(TaskGroup.created < oldest, ~waiting))
        removed += await self._delete(Token.hash, Token.expires < now)
        removed += await self._delete(RefreshToken.hash, RefreshToken.expires < now)
        removed += await self._delete(Code.hash, Code.expires < now)
        removed += await self._forget_user_endpoints(now - self._settings.keep_user_endpoints_s)
        await self._expire_tasks(oldest)
        if removed:
            log.info("Removed %d old entries", removed)

    async def _expire_tasks(self, oldest: float) -> None:
        late = select(Task.id).where(Task.completed.is_(None), Task.created < oldest).limit(AT_ONCE)
        while True:
            async with self._store.writing() as session:
                ids = (await session.scalars(late)).all()
                await session.execute(delete(Outgoing).where(Outgoing.task_id.in_(ids)))
            if not ids:
                return
            days = self._settings.keep_tasks_s / 86400
            await self._results.fail(ids, TaskExpired(f"No endpoint ran the task within {days:g} days").failure)

    async def _delete(self, key: InstrumentedAttribute[str], condition: ColumnElement[bool]) -> int:
        removed = 0
        while True:
            async with self._store.writing() as session:
                ids = (await session.scalars(select(key).where(condition).limit(AT_ONCE))).all()
                if ids:
                    await session.execute(delete(key.class_).where(key.in_(ids)))
            removed += len(ids)
            if len(ids) < AT_ONCE:
                return removed

    async def _forget_user_endpoints(self, oldest: float) -> int:
        seen = func.max(Endpoint.last_seen, Endpoint.created)
        busy = exists(select(Task.id).where(Task.endpoint_id == Endpoint.id, Task.completed.is_(None)))
        async with self._store.reading() as session:
            query = select(Endpoint.id).where(Endpoint.parent_id.is_not(None), seen < oldest, ~busy)
            ids = [one for one in await session.scalars(query) if not self._presence.is_online(one)]
        for one in ids:
            await self._broker.remove_endpoint(one)
            self._starts.forget(one)
            async with self._store.writing() as session:
                await session.execute(delete(Endpoint).where(Endpoint.id == one))
        self._presence.forget(ids)
        return len(ids)
