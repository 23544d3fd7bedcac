"""Tasks that nobody wants any more, in Parsl's workers: with the interchange, with a pool, and in a worker."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from endpoint.engines.build import build_engine
from endpoint.engines.htex import GlobusComputeEngine
from endpoint.errors import TaskCancelled
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import double, hold, linger, source_task, stubborn, value_of
from tests.support.pythons import another_python
from tests.support.waiting import runs, wait_for

PATIENCE_S = 60
LOCAL = {
    "type": "GlobusComputeEngine",
    "heartbeat_period": 60,
    "heartbeat_threshold": 200,
    "max_workers_per_node": 2,
}


@pytest.fixture(scope="module")
def make() -> Iterator[Callable[..., GlobusComputeEngine]]:
    """Starts engines, each in a directory, and shuts them down."""
    started: list[Any] = []

    def start(run_dir: Path, **block: Any) -> Any:
        made = build_engine(engine_block(**{**LOCAL, **block}))
        started.append(made)
        made.start(endpoint_id=str(uuid.uuid4()), run_dir=run_dir, on_failure=pytest.fail)
        return made

    yield start
    for made in started:
        made.shutdown()


@pytest.fixture(scope="module")
def shared(make, tmp_path_factory) -> GlobusComputeEngine:
    """Two workers, and room for four tasks that wait beside them."""
    return make(tmp_path_factory.mktemp("shared"), cancel_grace=0.5, prefetch_capacity=4)


def reason(future: Future[bytes]) -> str:
    """Why a task has no result; it must be that it was cancelled."""
    error = future.exception(PATIENCE_S)
    assert isinstance(error, TaskCancelled), error
    return error.failure.reason


def test_of_two_hundred_waiting_tasks_exactly_those_are_cancelled_that_should_be(shared, tmp_path):
    gates = [tmp_path / name for name in ("a", "b")]
    busy = [shared.submit(hold(str(gate))) for gate in gates]
    assert wait_for(lambda: all(gate.exists() for gate in gates), PATIENCE_S)
    tasks = [double(str(number)) for number in range(200)]
    futures = [shared.submit(task) for task in tasks]

    assert all(shared.cancel(task.task_id) for task in tasks[::2])

    assert {reason(future) for future in futures[::2]} == {"The task was cancelled before it began"}
    assert not any(future.done() for future in futures[1::2])
    for gate in gates:
        gate.unlink()
    assert [value_of(one.result(PATIENCE_S)) for one in futures[1::2]] == [str(n) * 2 for n in range(1, 200, 2)]
    assert [value_of(one.result(PATIENCE_S)) for one in busy] == [None, None]
    assert shared.status()["outstanding_tasks"] == 0


def test_a_task_that_is_cancelled_at_once_never_runs_or_is_stopped(shared, tmp_path):
    tasks = [source_task("touch", TOUCH, str(tmp_path / str(number))) for number in range(60)]
    futures = []
    for task in tasks:
        futures.append(shared.submit(task))
        shared.cancel(task.task_id)

    for future in futures:
        if (error := future.exception(PATIENCE_S)) is not None:
            assert isinstance(error, TaskCancelled), error
    assert value_of(shared.submit(double("x")).result(PATIENCE_S)) == "xx"


TOUCH = "def touch(path):\n    import pathlib\n    pathlib.Path(path).touch()\n"


def test_only_the_processes_of_a_running_task_are_ended_and_its_worker_is_replaced(shared, tmp_path):
    note, other = tmp_path / "note", tmp_path / "other"
    task = linger(str(note))
    future, neighbour = shared.submit(task), shared.submit(hold(str(other)))
    assert wait_for(lambda: note.exists() and other.exists(), PATIENCE_S)
    pids = json.loads(note.read_text())

    assert shared.cancel(task.task_id)

    assert "ended when they were asked to (SIGTERM)" in reason(future)
    assert not any(runs(pid) for pid in pids)
    began = time.monotonic()
    assert value_of(shared.submit(double("x")).result(PATIENCE_S)) == "xx", "the other worker is busy"
    assert time.monotonic() - began < 30, "nobody waited until Parsl looks after its workers"
    other.unlink()
    assert value_of(neighbour.result(PATIENCE_S)) is None


def test_what_does_not_end_when_it_is_asked_to_is_killed_and_so_is_what_left_its_session(shared, tmp_path):
    note = tmp_path / "note"
    task = stubborn(str(note))
    future = shared.submit(task)
    assert wait_for(note.exists, PATIENCE_S)
    pids = json.loads(note.read_text())

    shared.cancel(task.task_id)

    assert "did not end within 0.5 s (SIGTERM), and were killed" in reason(future)
    assert not any(runs(pid) for pid in pids)
    assert value_of(shared.submit(double("x")).result(PATIENCE_S)) == "xx"


def test_cancellations_that_race_with_the_ends_of_tasks_give_one_answer_each_and_harm_nobody(shared):
    pause = "def pause(s):\n    import time\n    time.sleep(s)\n    return s\n"
    for delay in range(40):
        task = source_task("pause", pause, 0.003)
        future, neighbour = shared.submit(task), shared.submit(double("y"))
        time.sleep(0.0002 * delay)
        shared.cancel(task.task_id)

        if (error := future.exception(PATIENCE_S)) is None:
            assert value_of(future.result()) == 0.003
        else:
            assert isinstance(error, TaskCancelled), error
        assert value_of(neighbour.result(PATIENCE_S)) == "yy"
    assert shared.status()["outstanding_tasks"] == 0


def test_a_function_in_a_python_of_the_users_own_is_ended_with_its_worker(make, tmp_path):
    version, program = another_python()
    environment = tmp_path / "environment"
    subprocess.run([program, "-m", "venv", "--without-pip", environment], check=True)
    provider = {"type": "LocalProvider", "worker_init": f". {environment}/bin/activate", "init_blocks": 1}
    (tmp_path / "run").mkdir()
    engine = make(tmp_path / "run", cancel_grace=0.5, max_workers_per_node=1, provider=provider)
    asks = source_task("asks", "def asks():\n    import sys\n    return '%d.%d' % sys.version_info[:2]\n")
    assert value_of(engine.submit(asks).result(PATIENCE_S)) == version
    note = tmp_path / "note"
    task = stubborn(str(note))
    future = engine.submit(task)
    assert wait_for(note.exists, PATIENCE_S)
    pids = json.loads(note.read_text())

    engine.cancel(task.task_id)

    assert "did not end within 0.5 s (SIGTERM), and were killed" in reason(future)
    assert wait_for(lambda: not any(runs(pid) for pid in pids))
    assert value_of(engine.submit(asks).result(PATIENCE_S)) == version


def test_tasks_on_several_blocks_are_stopped_and_idle_blocks_are_given_back(make, tmp_path):
    engine = make(
        tmp_path,
        max_workers_per_node=1,
        prefetch_capacity=0,
        job_status_kwargs={"max_idletime": 1, "strategy_period": 1},
        provider={"type": "LocalProvider", "init_blocks": 2, "min_blocks": 0, "max_blocks": 2},
    )
    notes = [tmp_path / f"note{number}" for number in range(2)]
    tasks = [linger(str(note)) for note in notes]
    futures = [engine.submit(task) for task in tasks]
    assert wait_for(lambda: all(note.exists() for note in notes), PATIENCE_S)
    jobs = [int(job) for job in engine._executor.blocks_to_job_id.values()]
    assert len(jobs) == 2
    assert all(runs(job) for job in jobs)

    for task in tasks:
        engine.cancel(task.task_id)

    assert all("SIGTERM" in reason(future) for future in futures)
    assert wait_for(lambda: not any(runs(job) for job in jobs), PATIENCE_S)


def test_a_pool_of_parsls_own_is_not_told_and_the_owner_is(make, tmp_path):
    options = (
        "{debug} {max_workers_per_node} -a {addresses} -p {prefetch_capacity} -c {cores_per_worker} -m {mem_per_worker}"
        " --poll {poll_period} --port={worker_port} --cert_dir {cert_dir} --logdir={logdir} --block_id={{block_id}}"
        " --hb_period={heartbeat_period} --hb_threshold={heartbeat_threshold} --cpu-affinity {cpu_affinity}"
        " --drain_period={drain_period}"
    )
    command = f"{sys.executable} -m parsl.executors.high_throughput.process_worker_pool {options}"
    engine = make(tmp_path, launch_cmd=command, max_workers_per_node=1)
    note = tmp_path / "note"
    task = hold(str(note))
    future = engine.submit(task)
    assert wait_for(note.exists, PATIENCE_S)

    engine.cancel(task.task_id)

    assert "it goes on to its end, and its result is dropped" in reason(future)
    note.unlink()
    assert value_of(engine.submit(double("x")).result(PATIENCE_S)) == "xx"
