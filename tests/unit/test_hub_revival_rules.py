"""When the hub asks again for a user endpoint that has ended, and with what."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, cast

import pytest

from endpoint.hub.models import Endpoint, Identity
from endpoint.hub.presence import Presence
from endpoint.hub.rest import Caller
from endpoint.hub.revivals import MOST_TRIES, pause_s
from endpoint.hub.starts import StartRequest
from endpoint.hub.store import Store
from tests.support.hub_peers import hub_settings

SETTINGS = hub_settings(Path("hub.db"), refresh_start_s=10.0, start_wait_s=45.0)
OWNER = Identity(id="11111111-1111-4111-8111-111111111111", username="alice@vm", name="Alice")
BOSS = Endpoint(id="22222222-2222-4222-8222-222222222222", name="lab", high_assurance=False)


def test_it_is_asked_for_less_and_less_often_and_then_no_more() -> None:
    pauses = [pause_s(tries, SETTINGS) for tries in range(MOST_TRIES + 2)]

    assert pauses == [10, 45, 90, 180, 360, 720, math.inf, math.inf]


def test_what_the_database_keeps_makes_the_same_request_again() -> None:
    request = StartRequest(BOSS, Caller.of(OWNER), {"workers": 2}, {"python": {"version": "3.11.7"}})

    kept = StartRequest.kept(request.row(), BOSS, OWNER)

    assert kept == request
    assert kept is not None
    assert kept.command({}) == request.command({})


@pytest.mark.parametrize(
    "details",
    [
        {"user_endpoint_config": {"workers": 2}},  # of a version before this one
        {"user_endpoint_config": {"workers": 2}, "user_runtime": None},
        {"user_endpoint_config": {"workers": 3}, "user_runtime": {}},
    ],
)
def test_without_all_of_it_there_is_no_request(details: dict[str, Any]) -> None:
    row = StartRequest(BOSS, Caller.of(OWNER), {"workers": 2}, {}).row()
    row.details = details

    assert StartRequest.kept(row, BOSS, OWNER) is None


class Clock:
    """What `time.time` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def presence() -> Presence:
    return Presence(cast(Store, None), missed=2, slack_s=10)  # which nothing here reads or writes


def test_an_endpoint_is_gone_when_its_heartbeats_are_missing_or_it_said_so(clock: Clock) -> None:
    heard = presence()
    for name, state in (("silent", {}), ("failed", {"error": "x"}), ("ended", {"active": False})):
        heard.note(name, {"heartbeat_period": 30, **state})

    assert [heard.is_gone(name) for name in ("silent", "failed", "ended")] == [False, True, True]
    clock.now += 70
    assert not heard.is_gone("silent")
    clock.now += 1
    assert heard.is_gone("silent")


def test_while_the_hub_could_hear_nobody_nobody_is_gone(clock: Clock) -> None:
    heard = presence()
    heard.note("one", {"heartbeat_period": 30})
    clock.now += 600
    heard.listens()

    assert not heard.is_online("one")
    assert not heard.is_gone("one")
    assert not heard.is_gone("never-heard-of")
    clock.now += 71
    assert heard.is_gone("one")
    assert heard.is_gone("never-heard-of")
