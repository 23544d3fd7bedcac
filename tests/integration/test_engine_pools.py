"""ThreadPoolEngine and ProcessPoolEngine with real tasks and real processes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from endpoint.errors import EndpointError, EngineFailure, NotBegun, TaskLost, TaskRefused
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import die, double, hold, linger, meet, source_task, value_of, where

POOLS = ["ThreadPoolEngine", "ProcessPoolEngine"]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Starts engines in `tmp_path` and shuts them down."""
    started: list[Engine] = []

    def start(**block: Any) -> Engine:
        made = build_engine(engine_block(**block))
        started.append(made)
        made.start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path, on_failure=pytest.fail)
        return made

    yield start
    for made in started:
        made.shutdown()


@pytest.mark.parametrize("kind", POOLS)
def test_an_engine_runs_hundreds_of_small_tasks(engine, kind):
    running = engine(type=kind, max_workers=2)

    futures = [running.submit(double(str(number))) for number in range(300)]

    assert [value_of(future.result(30)) for future in futures] == [str(number) * 2 for number in range(300)]
    assert (running.status()["outstanding_tasks"], running.status()["total_tasks"]) == (0, 300)


@pytest.mark.parametrize("kind", POOLS)
def test_an_engine_takes_and_returns_a_megabyte(engine, kind):
    big = "0123456789" * 100_000

    assert value_of(engine(type=kind, max_workers=1).submit(double(big)).result(30)) == big * 2


@pytest.mark.parametrize("kind", POOLS)
def test_a_task_runs_below_the_run_directory(engine, kind, tmp_path):
    before = os.getcwd()

    _, directory, sandbox = value_of(engine(type=kind, max_workers=1).submit(where()).result(30))

    assert (directory, sandbox) == (str(tmp_path / "tasks_working_dir"), None)
    assert os.getcwd() == before


@pytest.mark.parametrize("kind", POOLS)
def test_tasks_that_run_at_the_same_time_have_each_its_sandbox(engine, kind, tmp_path):
    running = engine(type=kind, max_workers=2, working_dir="work", run_in_sandbox=True)

    first, second = [running.submit(meet(mark)) for mark in "ab"]
    places = [value_of(future.result(30)) for future in (first, second)]

    assert all(at_first == afterwards for at_first, afterwards in places)
    assert len({place for place, _ in places}) == 2
    assert all(Path(place).parent == tmp_path / "work" for place, _ in places)


@pytest.mark.parametrize("kind", POOLS)
def test_an_engine_refuses_a_resource_specification(engine, kind):
    task = source_task("double", "def double(x): return x", 1)
    task.resource_specification["num_nodes"] = 2

    with pytest.raises(TaskRefused, match="no resource specification"):
        engine(type=kind, max_workers=1).submit(task)


@pytest.mark.parametrize("kind", POOLS)
def test_an_engine_says_what_waits_and_what_is_busy(engine, kind, tmp_path):
    running = engine(type=kind, max_workers=1)
    first = running.submit(hold(str(tmp_path / "note")))
    wait_for(tmp_path / "note")
    future = running.submit(double("x"))

    assert running.status()["pending_tasks"] == 1
    assert running.status()["idle_workers"] == 0
    (tmp_path / "note").unlink()
    assert value_of(first.result(30)) is None
    assert value_of(future.result(30)) == "xx"


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_process_that_dies_takes_only_its_own_task_along(engine, how):
    running = engine(type="ProcessPoolEngine", max_workers=2)

    futures = [running.submit(double(str(number))) for number in range(20)]
    lost = running.submit(die(how))
    futures += [running.submit(double(str(number))) for number in range(20)]

    with pytest.raises(TaskLost, match="status 3" if how == "exit" else "SIGKILL"):
        lost.result(30)
    assert len([value_of(future.result(30)) for future in futures]) == 40


def test_a_process_that_dies_is_missed_while_one_that_it_forked_lives_on(engine):
    fork = """
def fork():
    import os, signal, threading
    if os.fork() == 0:
        threading.Event().wait()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    running = engine(type="ProcessPoolEngine", max_workers=1)

    assert isinstance(running.submit(source_task("fork", fork)).exception(10), TaskLost)
    assert value_of(running.submit(double("x")).result(30)) == "xx"


def test_a_process_that_died_while_idle_costs_no_task(engine):
    running = engine(type="ProcessPoolEngine", max_workers=1)
    pid, _, _ = value_of(running.submit(where()).result(30))
    worker = os.pidfd_open(pid)

    os.kill(pid, signal.SIGKILL)
    assert select.select([worker], [], [], 10)[0]
    os.close(worker)

    assert value_of(running.submit(where()).result(30))[0] != pid


def test_a_lost_task_is_run_again_as_often_as_configured(engine, tmp_path):
    once = """
def once(note):
    import os, pathlib
    with open(note, "a") as file:
        file.write("x")
    if pathlib.Path(note).read_text() != "xxx":
        os._exit(1)
    return "third time"
"""
    running = engine(type="ProcessPoolEngine", max_workers=1, max_retries_on_system_failure=2)

    third = running.submit(source_task("once", once, str(tmp_path / "note")))
    never = running.submit(die())

    assert value_of(third.result(30)) == "third time"
    assert isinstance(never.exception(30), TaskLost)


def test_a_process_is_replaced_after_as_many_tasks_as_configured(engine):
    running = engine(type="ProcessPoolEngine", max_workers=1, max_tasks_per_child=2)

    pids = [value_of(running.submit(where()).result(30))[0] for _ in range(4)]

    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_tasks_do_not_wait_behind_one_that_takes_long_while_a_process_is_free(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=2)
    for future in [running.submit(double("quick")) for _ in range(200)]:  # from now on each gets several at once
        future.result(30)

    futures = [running.submit(double("x")) for _ in range(8)]
    futures += [running.submit(hold(str(tmp_path / "note")))]
    futures += [running.submit(double("y")) for _ in range(200)]

    finished = [future.result(10) for future in futures[:8] + futures[9:]]
    assert len(finished) == 208
    assert not futures[8].done()
    (tmp_path / "note").unlink()
    futures[8].result(10)


def test_tasks_that_lie_with_a_busy_process_are_given_back_when_the_engine_stops_starting(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=1)
    for future in [running.submit(double("quick")) for _ in range(50)]:
        future.result(30)

    first = running.submit(hold(str(tmp_path / "note")))
    waiting = [running.submit(double("x")) for _ in range(20)]
    wait_for(tmp_path / "note")
    running.stop_starting()

    assert all(isinstance(future.exception(5), NotBegun) for future in waiting)
    (tmp_path / "note").unlink()
    assert first.exception(10) is None


def test_a_process_that_dies_with_tasks_ahead_gives_them_to_the_next(engine):
    running = engine(type="ProcessPoolEngine", max_workers=1)
    for future in [running.submit(double("quick")) for _ in range(50)]:
        future.result(30)

    before = [running.submit(double("a")) for _ in range(10)]
    lost = running.submit(die("kill"))
    after = [running.submit(double("b")) for _ in range(10)]

    assert isinstance(lost.exception(30), TaskLost)
    assert [value_of(future.result(30)) for future in before + after] == ["aa"] * 10 + ["bb"] * 10


def test_shutdown_ends_processes_in_the_midst_of_a_task_and_their_children(engine, tmp_path):
    before = psutil.Process().children()
    running = engine(type="ProcessPoolEngine", max_workers=2)
    future = running.submit(linger(str(tmp_path / "note")))
    wait_for(tmp_path / "note")
    processes = [psutil.Process(pid) for pid in json.loads((tmp_path / "note").read_text())]

    running.shutdown()
    running.shutdown()

    assert future.cancelled()
    assert psutil.wait_procs(processes, 5)[1] == []
    assert set(psutil.Process().children()) <= set(before)
    assert running.submit(double("x")).cancelled()


def test_a_pool_dies_with_an_endpoint_that_is_killed(tmp_path):
    block = {"type": "ProcessPoolEngine", "max_workers": 1}

    host, processes = start_host(block, tmp_path)
    host.kill()
    host.wait()

    assert len(processes) >= 2
    assert psutil.wait_procs(processes, 5)[1] == []


def test_processes_that_can_not_start_are_an_engine_failure_for_each_task(engine, tmp_path):
    running = engine(type="ProcessPoolEngine", max_workers=1)
    (tmp_path / "engine.alive").unlink()

    for _ in range(2):
        failure = running.submit(double("x")).exception(10)
        assert isinstance(failure, EngineFailure)
        assert "new worker process ended with status 75" in str(failure)


def test_a_run_directory_that_can_not_be_used_is_an_engine_failure(tmp_path):
    (tmp_path / "file").write_text("")
    engine = build_engine(engine_block(type="ProcessPoolEngine", max_workers=1))

    with pytest.raises(EngineFailure, match="run directory"):
        engine.start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path / "file", on_failure=_ignore)
    engine.shutdown()


def _ignore(error: EndpointError) -> None:
    del error


def wait_for(path: Path) -> None:
    """Wait, with a child, until `path` is there."""
    subprocess.run(["sh", "-c", 'while ! test -e "$0"; do sleep 0.02; done', str(path)], timeout=30, check=True)


def start_host(block: dict[str, Any], directory: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A process with an engine in it, and all processes of that engine."""
    command = [sys.executable, "-m", "tests.support.engine_host", json.dumps(block), str(directory)]
    host = subprocess.Popen([*command, str(directory / "note")], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert host.stdout is not None
    with host.stdout:
        pids = json.loads(host.stdout.readline())
    return host, [psutil.Process(pid) for pid in pids]
