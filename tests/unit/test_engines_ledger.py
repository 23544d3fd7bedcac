"""What an engine owes, played with attempts that the test settles."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from endpoint.engines.base import EngineTask
from endpoint.engines.ledger import Ledger
from endpoint.errors import EndpointError, EngineFailure, NotBegun, TaskCancelled, TaskLost, TaskRefused

TASK = EngineTask("task", "function", b"body")


class Engine:
    """Launches attempts that stay open; `refusals` are raised instead, in order."""

    def __init__(self, *refusals: EndpointError | None, retries: int = 0) -> None:
        self.attempts: list[Future[bytes]] = []
        self.refusals = list(refusals)
        self.ledger = Ledger(self.launch, lambda failure: EngineFailure(f"translated {failure}"), retries, self.stop)
        self.before_launch = lambda: None

    def stop(self, task_id: str, attempt: Future[bytes]) -> None:
        """As an engine can, with an attempt that has not begun."""
        attempt.cancel()

    def launch(self, task: EngineTask) -> Future[bytes]:
        self.before_launch()
        if self.refusals and (error := self.refusals.pop(0)) is not None:
            raise error
        self.attempts.append(Future())
        return self.attempts[-1]


def test_a_result_is_handed_on_and_nothing_is_owed_any_more():
    engine = Engine()
    answer = engine.ledger.submit(TASK)
    assert engine.ledger.outstanding == 1

    engine.attempts[0].set_result(b"result")

    assert answer.result(0) == b"result"
    assert (engine.ledger.outstanding, engine.ledger.total) == (0, 1)


def test_a_lost_task_is_tried_again_and_the_last_loss_is_the_answer():
    engine = Engine(retries=1)
    answer = engine.ledger.submit(TASK)

    engine.attempts[0].set_exception(TaskLost("first"))
    assert not answer.done()
    engine.attempts[1].set_exception(TaskLost("second"))

    assert str(answer.exception(0)) == "second"
    assert len(engine.attempts) == 2


def test_a_failure_that_trying_again_does_not_mend_is_the_answer_at_once():
    engine = Engine(retries=5)
    answer = engine.ledger.submit(TASK)

    engine.attempts[0].set_exception(ValueError("odd"))

    assert isinstance(answer.exception(0), EngineFailure)
    assert str(answer.exception(0)) == "translated odd"
    assert len(engine.attempts) == 1


def test_a_refusal_is_raised_and_not_owed():
    engine = Engine(TaskRefused("no"))

    with pytest.raises(TaskRefused):
        engine.ledger.submit(TASK)

    assert engine.ledger.outstanding == 0


def test_an_engine_that_can_not_launch_answers_with_its_error():
    assert isinstance(Engine(EngineFailure("broken")).ledger.submit(TASK).exception(0), EngineFailure)


def test_a_refusal_of_the_second_attempt_is_the_answer():
    engine = Engine(None, TaskRefused("no more"), retries=1)
    answer = engine.ledger.submit(TASK)

    engine.attempts[0].set_exception(TaskLost("lost"))

    assert isinstance(answer.exception(0), TaskRefused)


def test_closing_answers_all_that_is_owed_and_all_that_comes():
    engine = Engine(retries=3)
    before = engine.ledger.submit(TASK)

    assert engine.ledger.close(lambda: EngineFailure("over"))
    assert not engine.ledger.close(lambda: EngineFailure("over again"))
    engine.attempts[0].set_result(b"too late")

    assert str(before.exception(0)) == "over"
    assert str(engine.ledger.submit(TASK).exception(0)) == "over"
    assert len(engine.attempts) == 1


def test_closing_without_a_reason_cancels():
    engine = Engine()
    before = engine.ledger.submit(TASK)

    engine.ledger.close(lambda: None)

    assert before.cancelled()
    assert engine.ledger.submit(TASK).cancelled()


def test_an_attempt_that_is_lost_while_closing_is_not_tried_again():
    engine = Engine(retries=3)
    answer = engine.ledger.submit(TASK)
    engine.ledger.close(lambda: None)

    engine.attempts[0].set_exception(TaskLost("lost"))

    assert answer.cancelled()
    assert len(engine.attempts) == 1


def test_a_task_that_waits_is_cancelled_and_answered_at_once():
    engine = Engine()
    waiting = engine.ledger.submit(TASK)

    assert engine.ledger.cancel("task")

    assert isinstance(waiting.exception(0), TaskCancelled)
    assert str(waiting.exception(0)) == "The task was cancelled before it began"
    assert not engine.ledger.cancel("task")
    assert not engine.ledger.cancel("unknown")


def test_a_task_that_runs_is_stopped_and_answered_with_what_came_of_that():
    engine = Engine()
    running = engine.ledger.submit(TASK)
    engine.attempts[0].set_running_or_notify_cancel()

    assert engine.ledger.cancel("task")
    assert not running.done()
    engine.attempts[0].set_exception(TaskCancelled("stopped"))

    assert str(running.exception(0)) == "stopped"


def test_the_result_of_a_cancelled_task_is_its_answer_where_it_comes_first():
    engine = Engine()
    running = engine.ledger.submit(TASK)
    engine.attempts[0].set_running_or_notify_cancel()
    engine.ledger.cancel("task")

    engine.attempts[0].set_result(b"result")

    assert running.result(0) == b"result"


@pytest.mark.parametrize("failure", [TaskLost("its worker died"), NotBegun("given back"), ValueError("odd")])
def test_a_cancelled_task_is_not_tried_again_and_every_failure_of_it_is_that_it_was_cancelled(failure):
    engine = Engine(retries=3)
    running = engine.ledger.submit(TASK)
    engine.attempts[0].set_running_or_notify_cancel()
    engine.ledger.cancel("task")

    engine.attempts[0].set_exception(failure)

    assert isinstance(running.exception(0), TaskCancelled)
    assert len(engine.attempts) == 1


def test_a_task_that_is_cancelled_while_its_next_attempt_is_launched_is_stopped():
    engine = Engine(retries=1)
    running = engine.ledger.submit(TASK)
    engine.before_launch = lambda: engine.ledger.cancel("task")

    engine.attempts[0].set_exception(TaskLost("lost"))

    assert isinstance(running.exception(0), TaskCancelled)
    assert engine.attempts[1].cancelled()


def test_what_comes_of_a_task_that_was_let_go_is_dropped():
    engine = Engine()
    running = engine.ledger.submit(TASK)

    engine.ledger.let_go("task", TaskCancelled("it goes on"))
    engine.attempts[0].set_result(b"result")

    assert str(running.exception(0)) == "it goes on"
    assert engine.ledger.outstanding == 0
