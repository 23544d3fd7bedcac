"""Which endpoints are there: what their heartbeats said, and events for those who wait for one.

The newest heartbeat of each endpoint is kept in memory and, a moment later, in the database, so that a hub that was
restarted knows what it knew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update

from endpoint.hub.bounds import fits
from endpoint.hub.models import Endpoint
from endpoint.hub.store import Store

DEFAULT_PERIOD_S = 30.0
LONGEST_PERIOD_S = 24 * 3600.0
MAX_REPORT = 64 * 1024  # characters of a heartbeat's figures that are kept


@dataclass(frozen=True)
class Heartbeat:
    """One heartbeat: when it came (seconds since the epoch) and what it said."""

    at: float
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> str | None:
        """A failure notice's text."""
        text = self.report.get("error")
        return None if text is None else str(text)

    @property
    def period(self) -> float:
        """Seconds until the next one is due; 0: there will be none."""
        period = self.report.get("heartbeat_period", DEFAULT_PERIOD_S)
        if isinstance(period, bool) or not isinstance(period, int | float) or not 0 <= period <= LONGEST_PERIOD_S:
            return DEFAULT_PERIOD_S
        return float(period)

    @property
    def alive(self) -> bool:
        """Whether its sender goes on."""
        return self.error is None and self.report.get("active") is not False and self.period > 0


class Presence:
    """The newest heartbeat of each endpoint."""

    def __init__(self, store: Store, *, missed: float, slack_s: float) -> None:
        self._store = store
        self._missed = missed
        self._slack_s = slack_s
        self._last: dict[str, Heartbeat] = {}
        self._unsaved: set[str] = set()
        self._waiting: dict[str, asyncio.Event] = {}
        self._listening_since = time.time()

    async def load(self) -> None:
        """Take up what the database knows."""
        async with self._store.reading() as session:
            query = select(Endpoint.id, Endpoint.last_seen, Endpoint.report).where(Endpoint.last_seen > 0)
            self._last = {row.id: Heartbeat(row.last_seen, row.report) for row in await session.execute(query)}

    def note(self, endpoint_id: str, report: dict[str, Any]) -> Heartbeat:
        """A heartbeat has come."""
        kept = report if fits(report, MAX_REPORT) else {**_essentials(report), "truncated": True}
        beat = Heartbeat(time.time(), kept)
        if beat.error is not None and self._is_live_manager(endpoint_id):
            # A child that the official manager forked reports its own end under the manager's name as well.
            return beat
        self._last[endpoint_id] = beat
        self._unsaved.add(endpoint_id)
        if beat.alive and (event := self._waiting.pop(endpoint_id, None)):
            event.set()
        return beat

    def last(self, endpoint_id: str) -> Heartbeat | None:
        """The newest heartbeat, fresh or not."""
        return self._last.get(endpoint_id)

    def is_online(self, endpoint_id: str) -> bool:
        """Whether the newest heartbeat is fresh, and did not say that it was the last."""
        beat = self._last.get(endpoint_id)
        if beat is None or not beat.alive:
            return False
        return time.time() - beat.at <= self._patience_s(beat)

    def is_gone(self, endpoint_id: str) -> bool:
        """Whether it said that it ends, or was silent for too long while we could hear it."""
        beat = self._last.get(endpoint_id, Heartbeat(0.0))
        if not beat.alive:
            return True
        return time.time() - max(beat.at, self._listening_since) > self._patience_s(beat)

    def listens(self) -> None:
        """Heartbeats can be heard from now on: what did not come before proves nothing."""
        self._listening_since = time.time()

    def _patience_s(self, beat: Heartbeat) -> float:
        return self._missed * beat.period + self._slack_s

    def _is_live_manager(self, endpoint_id: str) -> bool:
        """Whether it is online and a manager, whose heartbeats say nothing of an engine."""
        return self.is_online(endpoint_id) and "active" not in self._last[endpoint_id].report

    async def comes_online(self, endpoint_id: str, timeout: float) -> bool:
        """Wait until the endpoint is online; False when `timeout` seconds are over."""
        if self.is_online(endpoint_id):
            return True
        event = self._waiting.setdefault(endpoint_id, asyncio.Event())
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True

    def forget(self, endpoint_ids: Iterable[str]) -> None:
        """These endpoints are gone."""
        for endpoint_id in endpoint_ids:
            self._last.pop(endpoint_id, None)
            self._unsaved.discard(endpoint_id)
            self._waiting.pop(endpoint_id, None)

    async def save(self) -> None:
        """Write what is not in the database yet."""
        unsaved, self._unsaved = self._unsaved, set()
        beats = {endpoint_id: self._last[endpoint_id] for endpoint_id in unsaved if endpoint_id in self._last}
        if not beats:
            return
        async with self._store.writing() as session:
            for endpoint_id, beat in beats.items():
                query = update(Endpoint).where(Endpoint.id == endpoint_id)
                await session.execute(query.values(last_seen=beat.at, report=beat.report))


def _essentials(report: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        name: report[name] for name in ("heartbeat_period", "active") if isinstance(report.get(name), int | float)
    }
    if "error" in report:
        kept["error"] = str(report["error"])[: MAX_REPORT // 2]
    return kept
