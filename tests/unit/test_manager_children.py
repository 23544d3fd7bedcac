"""Histories of user endpoints, played into the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.errors import ExitStatus
from endpoint.manager.children import TABLE, Action, Event, ImpossibleEvent, State, step
from endpoint.manager.supervisor import end_of

REQUESTED, LAUNCHED, LAUNCH_FAILED = Event.REQUESTED, Event.LAUNCHED, Event.LAUNCH_FAILED
ENDED_WELL, ENDED_BADLY, ENDED_TOLD = Event.ENDED_WELL, Event.ENDED_BADLY, Event.ENDED_TOLD
TIME_UP, STOP = Event.TIME_UP, Event.STOP
ADOPTED, ADOPTED_EARLY, LEAVE = Event.ADOPTED, Event.ADOPTED_EARLY, Event.LEAVE
WITH_A_PROCESS = {State.STARTING, State.RUNNING, State.KEEPING}


def play(*events: Event, state: State = State.NEW) -> tuple[State, list[Action]]:
    """The state after `events`, and the actions of the last one."""
    actions: tuple[Action, ...] = ()
    for event in events:
        state, actions = step(state, event)
    return state, list(actions)


def test_a_user_endpoint_that_was_asked_for_is_launched():
    assert play(REQUESTED) == (State.PREPARING, [Action.LAUNCH])


def test_a_user_endpoint_that_stays_up_runs():
    assert play(REQUESTED, LAUNCHED) == (State.STARTING, [Action.SET_TIMER])
    assert play(REQUESTED, LAUNCHED, TIME_UP) == (State.RUNNING, [])


def test_a_user_endpoint_that_cannot_be_launched_is_reported():
    assert play(REQUESTED, LAUNCH_FAILED) == (State.GONE, [Action.SEND_NOTICE, Action.FORGET])


def test_a_user_endpoint_that_breaks_while_it_starts_is_reported():
    assert play(REQUESTED, LAUNCHED, ENDED_BADLY) == (State.GONE, [Action.SEND_NOTICE, Action.FORGET])


def test_a_user_endpoint_that_breaks_later_is_reported_so_that_it_is_asked_for_again():
    assert play(REQUESTED, LAUNCHED, TIME_UP, ENDED_BADLY) == (State.GONE, [Action.SEND_NOTICE, Action.FORGET])


@pytest.mark.parametrize("history", [(LAUNCHED,), (LAUNCHED, TIME_UP)])
def test_a_user_endpoint_that_has_told_its_reason_is_not_reported_once_more(history):
    assert play(REQUESTED, *history, ENDED_TOLD) == (State.GONE, [Action.FORGET])


def test_who_asks_again_is_told_although_the_user_endpoint_has_told_its_reason_before():
    assert play(REQUESTED, LAUNCHED, REQUESTED, ENDED_TOLD) == (State.GONE, [Action.SEND_NOTICE, Action.FORGET])


@pytest.mark.parametrize(
    ("status", "started", "event"),
    [
        (0, True, ENDED_WELL),
        (-9, True, ENDED_BADLY),
        (-9, False, ENDED_BADLY),
        (3, True, ENDED_BADLY),
        (ExitStatus.NETWORK, True, ENDED_BADLY),
        (ExitStatus.BAD_CONFIG, False, ENDED_TOLD),
        (ExitStatus.ALREADY_RUNNING, False, ENDED_TOLD),
        (ExitStatus.FAILED, True, ENDED_TOLD),
        (ExitStatus.FAILED, False, ENDED_BADLY),
    ],
)
def test_an_exit_status_says_whether_the_user_was_told(status, started, event):
    assert end_of(status, started=started) is event


def test_a_request_for_a_running_user_endpoint_refreshes_its_credentials():
    state, actions = play(REQUESTED, LAUNCHED, TIME_UP, REQUESTED)

    assert (state, actions) == (State.KEEPING, [Action.REFRESH_CREDENTIALS, Action.SET_TIMER])


def test_a_user_endpoint_that_ends_within_the_grace_period_is_revived():
    assert play(REQUESTED, LAUNCHED, TIME_UP, REQUESTED, ENDED_WELL) == (State.PREPARING, [Action.LAUNCH])


def test_a_user_endpoint_that_ends_after_the_grace_period_is_not_revived():
    assert play(REQUESTED, LAUNCHED, TIME_UP, REQUESTED, TIME_UP, ENDED_WELL) == (State.GONE, [Action.FORGET])


def test_a_user_endpoint_that_breaks_within_the_grace_period_is_reported_and_not_revived():
    assert play(REQUESTED, LAUNCHED, REQUESTED, ENDED_BADLY) == (State.GONE, [Action.SEND_NOTICE, Action.FORGET])


def test_a_second_request_while_the_first_is_on_its_way_launches_nothing_more():
    assert play(REQUESTED, REQUESTED) == (State.PREPARING, [Action.REFRESH_CREDENTIALS])


def test_a_stop_is_a_request_first_and_a_kill_when_patience_is_over():
    assert play(REQUESTED, LAUNCHED, TIME_UP, STOP) == (State.STOPPING, [Action.TERMINATE, Action.SET_TIMER])
    assert play(REQUESTED, LAUNCHED, TIME_UP, STOP, TIME_UP) == (State.KILLING, [Action.KILL, Action.SET_TIMER])


def test_a_second_stop_kills_at_once():
    assert play(REQUESTED, LAUNCHED, STOP, STOP) == (State.KILLING, [Action.KILL, Action.SET_TIMER])


def test_a_stop_while_the_process_is_on_its_way_waits_for_it_and_ends_it():
    assert play(REQUESTED, STOP, LAUNCHED) == (State.STOPPING, [Action.TERMINATE, Action.SET_TIMER])


def test_a_user_endpoint_that_was_stopped_is_neither_reported_nor_revived():
    for history in ((LAUNCHED, STOP), (LAUNCHED, REQUESTED, STOP), (LAUNCHED, STOP, STOP)):
        for end in (ENDED_WELL, ENDED_BADLY, ENDED_TOLD):
            assert play(REQUESTED, *history, end) == (State.GONE, [Action.FORGET])


def test_a_user_endpoint_of_a_former_manager_runs_already():
    assert play(ADOPTED) == (State.RUNNING, [Action.FOLLOW])


def test_a_request_for_one_of_a_former_manager_refreshes_its_credentials_and_launches_nothing():
    assert play(ADOPTED, REQUESTED) == (State.KEEPING, [Action.REFRESH_CREDENTIALS, Action.SET_TIMER])


def test_one_that_a_former_manager_has_asked_for_is_followed_until_it_is_there():
    assert play(ADOPTED_EARLY) == (State.PREPARING, [Action.FOLLOW])
    assert play(ADOPTED_EARLY, LAUNCHED) == (State.STARTING, [Action.SET_TIMER])
    assert play(ADOPTED_EARLY, LAUNCH_FAILED) == (State.GONE, [Action.SEND_NOTICE, Action.FORGET])


def test_the_end_of_one_of_a_former_manager_is_reported_as_any_other():
    assert play(ADOPTED, ENDED_BADLY) == (State.GONE, [Action.SEND_NOTICE, Action.FORGET])
    assert play(ADOPTED, ENDED_WELL) == (State.GONE, [Action.FORGET])


@pytest.mark.parametrize("history", [(), (LAUNCHED,), (LAUNCHED, TIME_UP), (LAUNCHED, REQUESTED)])
def test_one_that_is_left_to_the_next_manager_is_forgotten_and_nothing_is_done_to_it(history):
    assert play(REQUESTED, *history, LEAVE) == (State.GONE, [Action.FORGET])


def test_what_is_being_stopped_is_not_left():
    for history in ((STOP,), (STOP, STOP)):
        state, _ = play(REQUESTED, LAUNCHED, *history)
        with pytest.raises(ImpossibleEvent):
            step(state, LEAVE)


def test_a_process_that_cannot_be_killed_is_given_up():
    assert play(REQUESTED, LAUNCHED, STOP, STOP, TIME_UP) == (State.GONE, [Action.FORGET])


@pytest.mark.parametrize("event", list(Event))
def test_what_is_gone_sees_nothing_more(event):
    with pytest.raises(ImpossibleEvent):
        step(State.GONE, event)


@given(st.lists(st.sampled_from(list(Event)), max_size=30))
def test_every_history_ends_in_a_state_that_is_stopped_by_two_stops_and_an_end(events):
    state = State.NEW
    for event in events:
        if (state, event) in TABLE:
            state, _ = step(state, event)
    if state in WITH_A_PROCESS:
        assert play(STOP, STOP, ENDED_BADLY, state=state) == (State.GONE, [Action.FORGET])


def test_a_child_is_forgotten_exactly_when_it_is_gone():
    for state, actions in TABLE.values():
        assert (Action.FORGET in actions) == (state is State.GONE)


def test_whoever_waits_has_a_timer():
    for (_, event), (state, actions) in TABLE.items():
        if state in (State.STARTING, State.KEEPING, State.STOPPING, State.KILLING) and event is not STOP:
            assert Action.SET_TIMER in actions
