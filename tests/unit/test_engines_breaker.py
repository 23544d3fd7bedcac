"""The circuit breaker for blocks, and the administrator's limits, on a clock of the test's own."""

from __future__ import annotations

import pytest

from endpoint.engines.block_limits import BlockLimits, Bucket
from endpoint.engines.breaker import LIFE, LONGEST_PAUSE_S, Breaker, Event, State


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock) -> Breaker:
    return Breaker(3, 60, clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.was_barren()


def test_three_barren_blocks_in_a_row_open_it(breaker):
    fail(breaker, 2)
    assert breaker.state is State.CLOSED

    fail(breaker, 1)

    assert breaker.state is State.OPEN
    assert breaker.allow(5, unproven=0) == 0


def test_a_block_that_works_begins_the_count_anew(breaker):
    fail(breaker, 2)
    breaker.worked()
    fail(breaker, 2)

    assert breaker.state is State.CLOSED


def test_before_the_first_worker_no_more_blocks_are_asked_for_than_may_fail(breaker):
    assert breaker.allow(10, unproven=0) == 3
    assert breaker.allow(10, unproven=3) == 0
    fail(breaker, 1)
    assert breaker.allow(10, unproven=2) == 0
    assert breaker.allow(10, unproven=0) == 2


def test_when_a_worker_has_come_up_any_number_may_be_asked_for(breaker):
    breaker.worked()

    assert breaker.allow(100, unproven=50) == 100


def test_after_the_pause_there_is_one_probe_and_its_worker_closes_it(breaker, clock):
    fail(breaker, 3)
    clock.now += 59
    assert breaker.allow(5, unproven=0) == 0
    clock.now += 1

    assert breaker.allow(5, unproven=0) == 1
    assert breaker.state is State.PROBING
    assert breaker.allow(5, unproven=1) == 0
    breaker.worked()
    assert breaker.state is State.CLOSED
    assert breaker.allow(5, unproven=0) == 5


def test_without_need_there_is_no_probe(breaker, clock):
    fail(breaker, 3)
    clock.now += 60

    assert breaker.allow(0, unproven=0) == 0
    assert breaker.state is State.OPEN


def test_each_probe_that_fails_doubles_the_pause_up_to_a_bound(breaker, clock):
    fail(breaker, 3)
    pauses = []
    for _ in range(6):
        clock.now = breaker.probe_at
        assert breaker.allow(1, unproven=0) == 1
        fail(breaker, 1)
        pauses.append(breaker.probe_at - clock.now)

    assert pauses == [120, 240, 480, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_a_probe_that_was_given_up_before_it_could_tell_is_made_again(breaker, clock):
    fail(breaker, 3)
    clock.now += 60
    assert breaker.allow(1, unproven=0) == 1

    assert breaker.allow(1, unproven=0) == 1


def test_a_block_that_was_under_way_when_it_opened_closes_it_with_its_worker(breaker):
    fail(breaker, 3)

    breaker.worked()

    assert breaker.state is State.CLOSED


def test_every_state_has_a_way_back_to_closed():
    assert {state for state, event in LIFE if event is Event.WORKED} == set(State)
    assert {LIFE[state, Event.WORKED] for state in State} == {State.CLOSED}


def test_a_minutes_requests_may_come_at_once_and_then_come_back_one_by_one(clock):
    bucket = Bucket(6, clock)
    assert bucket.allow(10) == 6
    bucket.take(6)
    assert bucket.allow(10) == 0

    clock.now += 10
    assert bucket.allow(10) == 1
    clock.now += 3600
    assert bucket.allow(10) == 6


def test_without_a_limit_everything_is_allowed(clock):
    bucket = Bucket(None, clock)
    bucket.take(1000)

    assert bucket.allow(1000) == 1000


@pytest.mark.parametrize("wrong", [0, -1, "3", True, 1.5])
def test_a_limit_that_is_no_number_of_blocks_is_refused(wrong):
    with pytest.raises(TypeError, match="max_blocks"):
        BlockLimits.of({"max_blocks": wrong})
