"""Tasks that nobody wants any more, in the engines on this machine's own threads and processes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from endpoint.errors import TaskCancelled
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import double, hold, linger, source_task, stubborn, value_of, where
from tests.support.waiting import runs, wait_for

POOLS = ["ThreadPoolEngine", "ProcessPoolEngine"]
PATIENCE_S = 30


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Starts engines in `tmp_path` and shuts them down."""
    started: list[Engine] = []

    def start(**block: object) -> Engine:
        made = build_engine(engine_block(**block))
        started.append(made)
        made.start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path, on_failure=pytest.fail)
        return made

    yield start
    for made in started:
        made.shutdown()


def reason(future: Future[bytes]) -> str:
    """Why a task has no result; it must be that it was cancelled."""
    error = future.exception(PATIENCE_S)
    assert isinstance(error, TaskCancelled), error
    assert error.failure.code == "TASK_CANCELLED"
    return error.failure.reason


@pytest.mark.parametrize("kind", POOLS)
def test_of_two_hundred_waiting_tasks_exactly_those_are_cancelled_that_should_be(engine, kind, tmp_path):
    running = engine(type=kind, max_workers=1)
    gate = tmp_path / "gate"
    first = running.submit(hold(str(gate)))
    assert wait_for(gate.exists)
    tasks = [double(str(number)) for number in range(200)]
    futures = [running.submit(task) for task in tasks]

    assert all(running.cancel(task.task_id) for task in tasks[::2])

    assert {reason(future) for future in futures[::2]} == {"The task was cancelled before it began"}
    assert not any(future.done() for future in futures[1::2])
    assert running.status()["pending_tasks"] == 100
    gate.unlink()
    assert [value_of(future.result(PATIENCE_S)) for future in futures[1::2]] == [str(n) * 2 for n in range(1, 200, 2)]
    assert value_of(first.result(PATIENCE_S)) is None
    assert running.status()["outstanding_tasks"] == 0


@pytest.mark.parametrize("kind", POOLS)
def test_a_task_that_is_answered_or_unknown_can_not_be_cancelled(engine, kind):
    running = engine(type=kind, max_workers=1)
    task = double("x")
    future = running.submit(task)
    assert value_of(future.result(PATIENCE_S)) == "xx"

    assert not running.cancel(task.task_id)
    assert not running.cancel(str(uuid.uuid4()))


def test_a_running_process_is_asked_to_end_with_all_that_it_has_started(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=2)
    note = tmp_path / "note"
    task = linger(str(note))
    future = running.submit(task)
    neighbour = running.submit(hold(str(tmp_path / "neighbour")))
    assert wait_for(lambda: note.exists() and (tmp_path / "neighbour").exists())
    pids = json.loads(note.read_text())

    assert running.cancel(task.task_id)

    assert "ended when they were asked to (SIGTERM)" in reason(future)
    assert wait_for(lambda: not any(runs(pid) for pid in pids))
    (tmp_path / "neighbour").unlink()
    assert value_of(neighbour.result(PATIENCE_S)) is None
    assert value_of(running.submit(double("x")).result(PATIENCE_S)) == "xx"


def test_what_does_not_end_when_it_is_asked_to_is_killed_and_so_is_what_left_its_session(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=1, cancel_grace=0.3)
    note = tmp_path / "note"
    task = stubborn(str(note))
    future = running.submit(task)
    assert wait_for(note.exists)
    pids = json.loads(note.read_text())
    assert len(pids) == 3
    asked = time.monotonic()

    running.cancel(task.task_id)

    assert "did not end within 0.3 s (SIGTERM), and were killed" in reason(future)
    assert time.monotonic() - asked >= 0.3
    assert wait_for(lambda: not any(runs(pid) for pid in pids))
    assert value_of(running.submit(double("x")).result(PATIENCE_S)) == "xx"


def test_a_function_that_ends_well_when_it_is_asked_to_has_its_result(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=1, cancel_grace=PATIENCE_S)
    note = tmp_path / "note"
    task = source_task("tidy_up", TIDY_UP, str(note))
    future = running.submit(task)
    assert wait_for(note.exists)

    running.cancel(task.task_id)

    assert value_of(future.result(PATIENCE_S)) == "saved"
    assert value_of(running.submit(double("x")).result(PATIENCE_S)) == "xx"


# Finishes when it is told to end.
TIDY_UP = """
def tidy_up(note):
    import pathlib, signal, threading
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    pathlib.Path(note).touch()
    while not told.wait(0.05):
        pass
    return "saved"
"""


def test_tasks_that_lay_ahead_with_the_process_of_a_cancelled_one_run_elsewhere(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=1)
    for number in range(50):  # so that it is known to be quick, and is given tasks ahead
        running.submit(double(str(number))).result(PATIENCE_S)
    (worker, _, _) = value_of(running.submit(where()).result(PATIENCE_S))
    note = tmp_path / "note"
    task = hold(str(note))
    future = running.submit(task)
    behind = [running.submit(where()) for _ in range(20)]
    assert wait_for(note.exists)

    running.cancel(task.task_id)

    assert "The task was cancelled when it had run for" in reason(future)
    places = [value_of(one.result(PATIENCE_S))[0] for one in behind]
    assert worker not in places


def test_a_task_that_lies_ahead_with_a_process_is_cancelled_without_harm_for_the_one_that_runs_there(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=1)
    for number in range(50):  # so that it is known to be quick, and is given tasks ahead
        running.submit(double(str(number))).result(PATIENCE_S)
    gate = tmp_path / "gate"
    first = running.submit(hold(str(gate)))
    ahead = [double(str(number)) for number in range(5)]
    futures = [running.submit(task) for task in ahead]
    assert wait_for(lambda: running._processes._workers[0].process.given, 5)

    for task in reversed(ahead):
        running.cancel(task.task_id)

    assert {reason(future) for future in futures} == {"The task was cancelled before it began"}
    assert wait_for(gate.exists)
    gate.unlink()
    assert value_of(first.result(PATIENCE_S)) is None


def test_a_cancelled_task_is_not_tried_again(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=1, max_retries_on_system_failure=3)
    note = tmp_path / "note"
    task = linger(str(note))
    future = running.submit(task)
    assert wait_for(note.exists)
    note.unlink()

    running.cancel(task.task_id)

    assert "SIGTERM" in reason(future)
    assert value_of(running.submit(double("x")).result(PATIENCE_S)) == "xx"
    assert not note.exists()


def test_a_cancellation_that_races_with_the_end_of_its_task_gives_one_answer_and_harms_nobody(engine):
    running = engine(type="ProcessPoolEngine", max_workers=2)
    for delay in range(40):
        task = source_task("pause", "def pause(s):\n    import time\n    time.sleep(s)\n    return s\n", 0.002)
        future, neighbour = running.submit(task), running.submit(double("y"))
        time.sleep(0.0001 * delay)
        running.cancel(task.task_id)

        if (error := future.exception(PATIENCE_S)) is None:
            assert value_of(future.result()) == 0.002
        else:
            assert isinstance(error, TaskCancelled)
        assert value_of(neighbour.result(PATIENCE_S)) == "yy"


def test_an_engine_that_ends_in_the_meantime_leaves_nothing_of_a_task_that_is_being_stopped(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=1, cancel_grace=600)
    note = tmp_path / "note"
    task = stubborn(str(note))
    future = running.submit(task)
    assert wait_for(note.exists)
    pids = json.loads(note.read_text())
    running.cancel(task.task_id)

    running.shutdown()

    assert future.cancelled()
    assert wait_for(lambda: not any(runs(pid) for pid in pids))


def test_a_thread_goes_on_and_its_result_is_dropped(engine, tmp_path):
    running = engine(type="ThreadPoolEngine", max_workers=1)
    note = tmp_path / "note"
    task = hold(str(note))
    future = running.submit(task)
    assert wait_for(note.exists)

    assert running.cancel(task.task_id)

    told = reason(future)
    assert "The task was cancelled when it had run for" in told
    assert "ThreadPoolEngine" in told
    assert "it goes on to its end, and its result is dropped" in told
    behind = running.submit(double("x"))
    assert not behind.done(), "the thread is not free yet"
    note.unlink()
    assert value_of(behind.result(PATIENCE_S)) == "xx"
