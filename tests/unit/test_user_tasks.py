"""Histories of tasks, played into the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint.user.tasks import TRANSITIONS, Action, Event, State, TaskTable, UnexpectedEvent

ARRIVED, REFUSED, RESULT = Event.ARRIVED, Event.REFUSED, Event.RESULT
CONFIRMED, UNPUBLISHED = Event.CONFIRMED, Event.UNPUBLISHED


def play(table: TaskTable, task_id: str, *events: Event) -> list[Action]:
    return [action for event in events for action in table.happened(task_id, event)]


def test_a_task_that_runs_well_is_acknowledged_last():
    table = TaskTable()

    actions = play(table, "t", ARRIVED, RESULT, CONFIRMED)

    assert actions == [Action.ADOPT, Action.SUBMIT, Action.PUBLISH, Action.ACK]
    assert (table.received, table.answered, len(table)) == (1, 1, 0)


def test_a_refused_task_is_answered_like_any_other():
    assert play(TaskTable(), "t", ARRIVED, REFUSED, CONFIRMED)[-2:] == [Action.PUBLISH, Action.ACK]


@pytest.mark.parametrize("before", [(ARRIVED,), (ARRIVED, RESULT)])
def test_a_redelivered_task_is_adopted_and_not_run_again(before):
    table = TaskTable()
    play(table, "t", *before)

    assert play(table, "t", ARRIVED) == [Action.ADOPT]
    assert table.received == 1


def test_a_task_whose_acknowledgement_was_lost_is_acknowledged_again_and_not_run():
    table = TaskTable()
    play(table, "t", ARRIVED, RESULT, CONFIRMED)

    assert play(table, "t", ARRIVED) == [Action.ADOPT, Action.ACK]
    assert (table.received, table.answered) == (1, 1)


def test_a_result_that_the_broker_could_not_keep_is_sent_again():
    table = TaskTable()

    assert play(table, "t", ARRIVED, RESULT, UNPUBLISHED)[-1] is Action.PUBLISH_LATER
    assert play(table, "t", CONFIRMED) == [Action.ACK]


@pytest.mark.parametrize("event", [RESULT, REFUSED, CONFIRMED, UNPUBLISHED])
def test_an_event_for_an_unknown_task_is_an_error_and_changes_nothing(event):
    table = TaskTable()

    with pytest.raises(UnexpectedEvent):
        table.happened("t", event)

    assert table.state("t") is None
    assert (table.received, table.answered, len(table)) == (0, 0, 0)


def test_only_the_newest_answered_tasks_are_remembered():
    table = TaskTable(answered_kept=2)
    for task_id in ("a", "b", "c"):
        play(table, task_id, ARRIVED, RESULT, CONFIRMED)

    assert [table.state(task_id) for task_id in ("a", "b", "c")] == [None, State.ANSWERED, State.ANSWERED]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(list(Event))), max_size=60))
def test_no_history_submits_a_task_twice_or_acknowledges_it_before_its_result_is_confirmed(history):
    table = TaskTable()
    submitted: list[str] = []
    confirmed: set[str] = set()
    for task_id, event in history:
        try:
            actions = table.happened(task_id, event)
        except UnexpectedEvent:
            assert (table.state(task_id), event) not in TRANSITIONS
            continue
        if event is CONFIRMED:
            confirmed.add(task_id)
        submitted += [task_id] * actions.count(Action.SUBMIT)
        assert Action.ACK not in actions or task_id in confirmed
    assert len(submitted) == len(set(submitted)) == table.received
    assert table.received - table.answered == len(table)
