from __future__ import annotations

from typing import Any

import pytest

from endpoint.errors import MalformedMessage
from endpoint.wire.messages import Actor, ErrorDetails, Result, StatusReport, Task, TaskCancel, TaskState, Transition

TASK = "5f6a7c1e-95a2-4a3e-8e5b-6d8d5c7f0a11"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Task("7", ""), "task_id is not a uuid: '7'"),
        (lambda: Task(TASK + "\n", ""), "task_id is not a uuid"),
        (lambda: Task(TASK, None), "task_buffer is not a string but null"),
        (lambda: Task(TASK, b""), "task_buffer is not a string but bytes"),
        (lambda: Task(TASK, "", "x"), "container_id is not a uuid"),
        (lambda: Task(TASK, "", None, "x"), "container is not an object but str"),
        (lambda: Task(TASK, "\ud800"), "task_buffer holds characters"),
        (lambda: Result(TASK, 1), "data is not a string but int"),
        (lambda: Result(TASK, "", []), "details is not an object but list"),
        (lambda: Result(TASK, "", {1: 2}), "details has a key"),
        (lambda: Result(TASK, "", None, {"code": "C"}), "error_details is not an object"),
        (lambda: Result(TASK, "", None, None, "x"), "task_statuses does not hold transitions"),
        (lambda: Result(TASK, "", None, None, [1]), "task_statuses does not hold transitions"),
        (lambda: ErrorDetails(None, ""), "error_details.code is not a string"),
        (lambda: ErrorDetails("C", 1), "error_details.user_message is not a string"),
        (lambda: StatusReport(None, {}, {}), "endpoint_id is not a uuid: None"),
        (lambda: StatusReport(TASK, None, {}), "global_state is not an object but null"),
        (lambda: StatusReport(TASK, {}, []), "task_statuses is not an object"),
        (lambda: StatusReport(TASK, {}, {TASK: 1}), "task_statuses does not hold transitions"),
        (lambda: TaskCancel(["x" * 1000]), "task_id is not a uuid: list"),
        (lambda: TaskCancel("x" * 1000), r"task_id is not a uuid: 'xxx.*\.\.\.$"),
        (lambda: Transition("1", TaskState.RUNNING, Actor.WORKER), "timestamp is not an integer"),
        (lambda: Transition(True, TaskState.RUNNING, Actor.WORKER), "timestamp is not an integer"),
        (lambda: Transition(-1, TaskState.RUNNING, Actor.WORKER), "nanoseconds since the epoch"),
        (lambda: Transition(2**63, TaskState.RUNNING, Actor.WORKER), "nanoseconds since the epoch"),
        (lambda: Transition(1, "asleep", Actor.WORKER), "state is unknown: 'asleep'"),
        (lambda: Transition(1, TaskState.RUNNING, None), "actor is unknown: None"),
        (lambda: Transition(1, TaskState.RUNNING, []), "actor is unknown: list"),
    ],
)
def test_a_wrong_value_can_not_be_made(make: Any, said: str) -> None:
    with pytest.raises(MalformedMessage, match=said):
        make()


def test_a_transition_takes_the_words_of_the_protocol() -> None:
    assert Transition(1, "execution-start", "worker") == Transition(1, TaskState.EXECUTION_START, Actor.WORKER)


def test_a_result_is_an_error_where_it_has_error_details() -> None:
    assert not Result(TASK, "11\n1").is_error
    assert Result(TASK, "no", error_details=ErrorDetails("C", "m")).is_error
