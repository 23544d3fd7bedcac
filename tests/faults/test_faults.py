"""A user endpoint with tasks in flight, under one fault at a time; `bench.faults` is the long form of these."""

from __future__ import annotations

import pytest

from bench.fault_count import Outcome
from tests.support.fault_outcomes import After

WORKERS = 2
INTERRUPTED = "TASK_INTERRUPTED: The task started on HOST at TIME, the {} stopped before it finished"


def assert_interrupted_at_most(outcome: Outcome, count: int, stopped: str = "endpoint") -> None:
    """No task got an error but those that were running (some had just ended), and these were told why."""
    assert outcome.errors_told <= count + (outcome.finished if count else 0), outcome
    assert all(text.startswith(INTERRUPTED.format(stopped)) for text in outcome.errors), outcome


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["thread", "process", "parsl"])
def test_a_killed_endpoint_restarts_at_once_and_only_running_tasks_are_interrupted(after: After, engine: str) -> None:
    assert_interrupted_at_most(after("kill-endpoint", engine), WORKERS)


@pytest.mark.slow
def test_a_task_that_may_be_run_again_is_run_again_after_a_kill(after: After) -> None:
    outcome = after("kill-endpoint-retry", "process")

    assert outcome.answered == outcome.tasks
    assert outcome.run_twice <= 2 * WORKERS  # those that ran, and those whose result was on its way from the worker


def test_a_killed_manager_ends_its_endpoint_and_the_next_one_takes_over(after: After) -> None:
    assert_interrupted_at_most(after("kill-manager", "process"), 0)


def test_a_polite_stop_interrupts_no_short_task(after: After) -> None:
    outcome = after("terminate", "process")

    assert_interrupted_at_most(outcome, 0)
    assert outcome.terminate_s is not None
    assert outcome.terminate_s < 10


def test_a_killed_worker_takes_only_its_own_task_with_it(after: After) -> None:
    outcome = after("kill-worker", "process")

    assert outcome.answered >= outcome.tasks - 1
    assert all(text.startswith("TASK_LOST") for text in outcome.errors), outcome


@pytest.mark.slow
def test_a_killed_interchange_is_replaced(after: After) -> None:
    assert_interrupted_at_most(after("kill-interchange", "parsl"), WORKERS, "engine")


@pytest.mark.slow
def test_a_killed_broker_costs_nothing_but_time(after: After) -> None:
    assert_interrupted_at_most(after("broker-kill", "process"), 0)


def test_connections_that_are_cut_cost_nothing(after: After) -> None:
    assert_interrupted_at_most(after("cut", "thread"), 0)


@pytest.mark.slow
def test_a_network_that_is_silently_dead_costs_nothing_but_time(after: After) -> None:
    assert_interrupted_at_most(after("silence", "thread"), 0)


@pytest.mark.slow
def test_revoked_credentials_are_replaced_by_those_in_the_memory_file(after: After) -> None:
    assert_interrupted_at_most(after("credentials", "thread"), 0)


@pytest.mark.slow
def test_tasks_that_outlast_the_brokers_patience_are_answered_once(after: After) -> None:
    assert_interrupted_at_most(after("consumer-timeout", "process"), 0)


@pytest.mark.slow
def test_a_full_disk_and_a_kill_lose_nothing(after: After) -> None:
    assert_interrupted_at_most(after("disk-full-kill", "process"), WORKERS)


def test_a_wall_clock_that_jumps_costs_nothing(after: After) -> None:
    assert_interrupted_at_most(after("clock", "process"), 0)


def test_garbage_between_tasks_is_answered_or_dropped_and_harms_no_task(after: After) -> None:
    outcome = after("garbage", "process")

    assert_interrupted_at_most(outcome, 0)
    assert outcome.expected_errors > 0
    assert outcome.ended_by_itself == 0


@pytest.mark.slow
def test_tasks_that_end_the_endpoint_do_so_once_each(after: After) -> None:
    outcome = after("deadly-task", "thread")

    assert_interrupted_at_most(outcome, 2 * (WORKERS - 1))
    assert outcome.expected_errors == outcome.ended_by_itself == 2
