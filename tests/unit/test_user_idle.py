"""When a user endpoint stops by itself."""

from __future__ import annotations

from endpoint.user.idle import IdleWatch


def beats(watch: IdleWatch, count: int, received: int, answered: int) -> list[str | None]:
    return [watch.heartbeat(received=received, answered=answered) for _ in range(count)]


def test_an_endpoint_without_a_soft_limit_never_stops():
    assert not any(beats(IdleWatch(soft=0, hard=1), 50, 3, 3))


def test_an_endpoint_that_answered_everything_stops_after_the_soft_limit():
    watch = IdleWatch(soft=3, hard=100)

    reasons = beats(watch, 4, 1, 1)

    assert reasons[:3] == [None, None, None]  # the first heartbeat sees the movement
    assert "idle_heartbeats_soft" in (reasons[3] or "")


def test_an_endpoint_with_an_outstanding_task_waits_for_the_hard_limit():
    reasons = beats(IdleWatch(soft=2, hard=6), 9, 2, 1)

    assert [i for i, reason in enumerate(reasons) if reason] == [7, 8]
    assert "idle_heartbeats_hard" in (reasons[7] or "")


def test_an_endpoint_that_nobody_used_waits_for_the_hard_limit():
    assert [i for i, reason in enumerate(beats(IdleWatch(soft=2, hard=6), 7, 0, 0)) if reason] == [6]


def test_movement_starts_the_count_again():
    watch = IdleWatch(soft=2, hard=100)
    beats(watch, 2, 1, 1)

    assert watch.heartbeat(received=2, answered=2) is None
    assert watch.heartbeat(received=2, answered=2) is None
    assert watch.heartbeat(received=2, answered=2) is not None
