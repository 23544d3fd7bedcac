"""Histories of tasks, played into the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.user.diagram import page
from endpoint.user.tasks import CLOSED, TRANSITIONS, Action, Event, State, TaskTable, UnexpectedEvent

ARRIVED, ROOM, REFUSED, RESULT, LOST = Event.ARRIVED, Event.ROOM, Event.REFUSED, Event.RESULT, Event.LOST
CONFIRMED, UNPUBLISHED, STOP = Event.CONFIRMED, Event.UNPUBLISHED, Event.STOP
CANCEL = Event.CANCEL
FOUND = {Event.FOUND_STARTED, Event.FOUND_RESULT, Event.FOUND_CANCELLED, Event.FOUND_ANSWERED}
ENDS = {Action.ACK, Action.KEEP, Action.REQUEUE}


def play(table: TaskTable, task_id: str, *events: Event) -> list[Action]:
    return [action for event in events for action in table.happened(task_id, event)]


def test_a_task_that_runs_well_is_acknowledged_last():
    table = TaskTable()

    actions = play(table, "t", ARRIVED, ROOM, RESULT, CONFIRMED)

    assert actions == [Action.ADOPT, Action.SUBMIT, Action.PUBLISH, Action.ACK]
    assert (table.received, table.answered, len(table)) == (1, 1, 0)


def test_a_refused_task_is_answered_like_any_other():
    assert play(TaskTable(), "t", ARRIVED, REFUSED, CONFIRMED)[-2:] == [Action.PUBLISH, Action.ACK]


@pytest.mark.parametrize("before", [(ARRIVED,), (ARRIVED, ROOM), (ARRIVED, ROOM, RESULT)])
def test_a_redelivered_task_is_adopted_and_not_run_again(before):
    table = TaskTable()
    play(table, "t", *before)

    assert play(table, "t", Event.BROKER_GONE, ARRIVED) == [Action.DISOWN, Action.ADOPT]
    assert table.received == 1


def test_a_task_whose_acknowledgement_was_lost_is_acknowledged_again_and_not_run():
    table = TaskTable()
    play(table, "t", ARRIVED, ROOM, RESULT, CONFIRMED)

    assert play(table, "t", ARRIVED) == [Action.ADOPT, Action.ACK]
    assert (table.received, table.answered) == (1, 1)


def test_a_result_that_the_broker_could_not_keep_is_sent_again():
    table = TaskTable()

    assert play(table, "t", ARRIVED, ROOM, RESULT, UNPUBLISHED)[-1] is Action.PUBLISH_LATER
    assert play(table, "t", CONFIRMED) == [Action.ACK]


def test_a_task_that_began_in_an_earlier_process_is_told_of_when_it_comes_again():
    table = TaskTable()

    assert play(table, "t", Event.FOUND_STARTED, ARRIVED, CONFIRMED) == [Action.ADOPT, Action.TELL, Action.ACK]
    assert (table.received, table.answered) == (1, 1)


def test_an_answer_that_an_earlier_process_left_is_published_before_its_task_comes_again():
    table = TaskTable()

    assert play(table, "t", Event.FOUND_RESULT, CONFIRMED, ARRIVED)[-2:] == [Action.ADOPT, Action.ACK]
    assert play(table, "u", Event.FOUND_ANSWERED, ARRIVED) == [Action.ADOPT, Action.ACK]


def test_when_the_engine_breaks_what_had_begun_is_told_of_and_the_rest_waits_for_the_next_one():
    table = TaskTable()

    assert play(table, "t", ARRIVED, ROOM, Event.STARTED, LOST)[-1] is Action.TELL
    assert play(table, "u", ARRIVED, ROOM, Event.ENGINE_GONE, ROOM).count(Action.SUBMIT) == 2


def test_what_has_not_begun_at_the_end_goes_back_to_the_broker_and_is_a_new_task_when_it_comes_again():
    table = TaskTable()

    assert play(table, "t", ARRIVED, ROOM, Event.NOT_BEGUN, STOP)[-1] is Action.REQUEUE
    assert table.state("t") is None
    assert (table.received, len(table)) == (0, 0)
    assert play(table, "t", ARRIVED) == [Action.ADOPT]


def test_a_cancelled_task_that_has_not_begun_is_answered_at_once_and_never_submitted():
    table = TaskTable()

    assert play(table, "t", ARRIVED, CANCEL) == [Action.ADOPT, Action.TELL_CANCELLED]
    assert play(table, "t", CANCEL, CONFIRMED) == [Action.ACK]


@pytest.mark.parametrize("answer", [RESULT, Event.CANCELLED])
def test_a_cancelled_task_that_the_engine_has_gets_the_engines_answer_whichever_comes(answer):
    table = TaskTable()

    assert play(table, "t", ARRIVED, ROOM, CANCEL) == [Action.ADOPT, Action.SUBMIT, Action.CANCEL]
    assert play(table, "t", CANCEL, answer, CANCEL, CONFIRMED, CANCEL) == [Action.PUBLISH, Action.ACK]
    assert (table.received, table.answered, len(table)) == (1, 1, 0)


@pytest.mark.parametrize("lost", [Event.ENGINE_GONE, Event.NOT_BEGUN])
def test_a_cancelled_task_does_not_begin_again_with_the_next_engine(lost):
    assert play(TaskTable(), "t", ARRIVED, ROOM, CANCEL, lost)[-1] is Action.TELL_CANCELLED


def test_a_task_that_was_cancelled_before_it_came_is_answered_when_it_comes():
    table = TaskTable()

    assert play(table, "t", CANCEL, CANCEL) == [Action.REMEMBER]
    assert (table.received, len(table)) == (0, 0)
    assert play(table, "t", ARRIVED, CONFIRMED) == [Action.ADOPT, Action.TELL_CANCELLED, Action.ACK]
    assert play(table, "u", Event.FOUND_CANCELLED, ARRIVED)[-1] is Action.TELL_CANCELLED


def test_a_cancelled_task_that_never_came_is_as_unknown_as_before_once_it_is_forgotten():
    table = TaskTable()

    assert play(table, "t", CANCEL, Event.FORGET, ARRIVED, ROOM) == [Action.REMEMBER, Action.ADOPT, Action.SUBMIT]


def test_a_redelivered_task_that_is_being_stopped_is_adopted():
    table = TaskTable()

    assert play(table, "t", ARRIVED, ROOM, CANCEL, Event.BROKER_GONE, ARRIVED)[-2:] == [Action.DISOWN, Action.ADOPT]


def test_a_delivery_that_gets_too_old_ends_on_the_disk_or_with_the_broker():
    table = TaskTable()

    assert play(table, "t", ARRIVED, Event.DEADLINE)[-1] is Action.REQUEUE
    assert play(table, "u", ARRIVED, ROOM, Event.DEADLINE)[-1] is Action.KEEP


@pytest.mark.parametrize("event", sorted(set(Event) - FOUND - {ARRIVED, CANCEL}))
def test_an_event_for_an_unknown_task_is_an_error_and_changes_nothing(event):
    table = TaskTable()

    with pytest.raises(UnexpectedEvent):
        table.happened("t", event)

    assert table.state("t") is None
    assert (table.received, table.answered, len(table)) == (0, 0, 0)


def test_only_the_newest_answered_tasks_are_remembered():
    table = TaskTable(answered_kept=2)
    for task_id in ("a", "b", "c"):
        play(table, task_id, ARRIVED, ROOM, RESULT, CONFIRMED)

    assert [table.state(task_id) for task_id in ("a", "b", "c")] == [None, State.ANSWERED, State.ANSWERED]


def test_the_reference_page_is_the_table():
    shown = Path(__file__).resolve().parents[2] / "docs" / "tasks.md"

    assert shown.read_text(encoding="utf-8") == page(), "run `make reference`"


def test_every_state_can_see_a_delivery_and_every_open_one_the_loss_of_the_broker():
    for state in set(State) - {State.HANDED_BACK, State.FORGOTTEN}:
        assert (state, ARRIVED) in TRANSITIONS
    for state in set(State) - CLOSED:
        assert (state, Event.BROKER_GONE) in TRANSITIONS
        assert (state, Event.DEADLINE) in TRANSITIONS


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(list(Event))), max_size=80))
def test_no_history_runs_a_task_twice_unasked_or_ends_a_delivery_twice_or_before_its_answer_is_confirmed(history):
    table = TaskTable()
    submitted: dict[str, int] = dict.fromkeys("abc", 0)
    permitted: dict[str, int] = dict.fromkeys("abc", 1)
    confirmed: set[str] = set()
    cancelled: set[str] = set()
    here: set[str] = set()  # tasks with a delivery that is not settled
    for task_id, event in history:
        try:
            actions = table.happened(task_id, event)
        except UnexpectedEvent:
            assert (table.state(task_id), event) not in TRANSITIONS
            continue
        cancelled |= {task_id} if event in (CANCEL, Event.FOUND_CANCELLED) else set()
        cancelled -= {task_id} if event is Event.FORGET else set()
        confirmed |= {task_id} if event in (CONFIRMED, Event.FOUND_ANSWERED) else set()
        permitted[task_id] += event in (Event.ENGINE_GONE, Event.NOT_BEGUN, STOP)
        submitted[task_id] += actions.count(Action.SUBMIT)
        for action in actions:
            assert action is not Action.SUBMIT or task_id not in cancelled
            if action is Action.ADOPT:
                here.add(task_id)
            elif action is Action.DISOWN:
                here.discard(task_id)
            elif action in ENDS:
                assert action is not Action.ACK or task_id in confirmed
                here.discard(task_id)
        if event is STOP:  # somebody else may have answered it meanwhile, but not this process
            assert task_id not in here
    for task_id in "abc":
        assert submitted[task_id] <= permitted[task_id]
        assert table.state(task_id) is not State.ANSWERED or task_id not in here
    assert table.received - table.answered == len(table)
