"""GlobusComputeEngine with Parsl's own processes on this machine."""

from __future__ import annotations

import hashlib
import json
import pickle
import queue
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from parsl import curvezmq

from endpoint.engines.build import build_engine
from endpoint.errors import ConfigError, EndpointError, EngineFailure, TaskLost, TaskRefused
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import die, double, linger, source_task, value_of, where

REPOSITORY = Path(__file__).parents[2]
LOCAL = {"type": "GlobusComputeEngine", "max_workers_per_node": 1, "heartbeat_period": 1}
FIRST_RESULT = 40  # seconds, on a machine that has other things to do


class Running:
    """An engine that was started, what it said about failing, and the processes that it started."""

    def __init__(self, block: dict[str, Any], run_dir: Path) -> None:
        self.failures: queue.SimpleQueue[EndpointError] = queue.SimpleQueue()
        self.run_dir = run_dir
        self.engine = build_engine(engine_block(**LOCAL, **block))
        self.engine.start(endpoint_id=str(uuid.uuid4()), run_dir=run_dir, on_failure=self.failures.put)

    @property
    def interchange(self) -> int:
        return self.engine._executor.interchange_proc.pid

    def processes(self) -> list[psutil.Process]:
        """The interchange; and by the run directory on their command lines, the blocks, which are nobody's children."""
        found = [psutil.Process(self.interchange)] if psutil.pid_exists(self.interchange) else []
        for process in psutil.process_iter():
            try:
                if str(self.run_dir) in " ".join(process.cmdline()):
                    found += [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return list(set(found))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def make(**block: Any) -> Running:
        started.append(Running(block, tmp_path))
        return started[-1]

    yield make
    for running in started:
        running.engine.shutdown()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One engine for the tests that leave it able to work."""
    block = {"heartbeat_threshold": 5, "working_dir": "work", "run_in_sandbox": True}
    running = Running(block, tmp_path_factory.mktemp("shared"))
    yield running
    running.engine.shutdown()


def test_blocks_of_workers_run_tasks_small_and_big(shared):
    engine = shared.engine
    task = where()

    _, directory, sandbox = value_of(engine.submit(task).result(FIRST_RESULT))
    futures = [engine.submit(double(str(number))) for number in range(300)]
    big = "0123456789" * 100_000
    futures.append(engine.submit(double(big)))

    assert directory == sandbox == str(shared.run_dir / "work" / task.task_id)
    assert [value_of(future.result(30)) for future in futures] == [str(n) * 2 for n in range(300)] + [big * 2]
    status = json.loads(json.dumps(engine.status(), allow_nan=False))
    assert (status["outstanding_tasks"], engine.capacity) == (0, 1)
    assert (status["engine_type"], status["provider_type"]) == ("GlobusComputeEngine", "LocalProvider")


def test_a_worker_that_dies_loses_its_task_and_is_replaced(shared):
    lost = shared.engine.submit(die("kill"))

    with pytest.raises(TaskLost, match="worker"):
        lost.result(FIRST_RESULT)
    assert value_of(shared.engine.submit(double("x")).result(FIRST_RESULT)) == "xx"


def test_a_pool_that_is_killed_loses_its_task_and_another_block_takes_over(shared, tmp_path):
    lost = shared.engine.submit(linger(str(tmp_path / "note")))
    wait_for(tmp_path / "note")
    worker, child = (psutil.Process(pid) for pid in json.loads((tmp_path / "note").read_text()))

    worker.parent().kill()

    with pytest.raises(TaskLost, match="worker was lost"):
        lost.result(FIRST_RESULT)
    assert value_of(shared.engine.submit(double("x")).result(FIRST_RESULT)) == "xx"
    assert psutil.wait_procs([worker, child], 5)[1] == []
    assert shared.failures.empty()


def test_the_task_of_a_block_that_has_ended_is_missed_long_before_its_heartbeats_are(start, tmp_path):
    running = start(heartbeat_threshold=600)
    lost = running.engine.submit(linger(str(tmp_path / "note")))
    wait_for(tmp_path / "note")
    worker, _ = (psutil.Process(pid) for pid in json.loads((tmp_path / "note").read_text()))

    worker.parent().kill()

    with pytest.raises(TaskLost, match="worker was lost"):
        lost.result(FIRST_RESULT)


def test_a_pool_is_heard_whose_first_socket_is_not_gone_yet(shared):
    executor = shared.engine._executor
    context = curvezmq.ClientContext(executor.cert_dir)
    try:
        for one in [context.socket(zmq.DEALER) for _ in range(2)]:  # as a pool, which closes the first one in between
            one.setsockopt(zmq.IDENTITY, b"the-pool")
            one.connect(f"tcp://127.0.0.1:{executor.worker_port}")
            one.send(pickle.dumps({"type": "connection_probe"}))
            assert one.poll(10_000), "the interchange answers"
    finally:
        context.destroy(0)


def test_a_resource_specification_may_only_have_a_priority(shared):
    first, second = double("x"), double("x")
    first.resource_specification["priority"] = 1
    second.resource_specification["num_nodes"] = 2

    assert value_of(shared.engine.submit(first).result(FIRST_RESULT)) == "xx"
    with pytest.raises(TaskRefused, match="num_nodes"):
        shared.engine.submit(second)
    assert shared.engine.status()["outstanding_tasks"] == 0


def test_an_address_that_nobody_knows_is_a_config_error():
    with pytest.raises(ConfigError, match=r"no\.such\.host\.invalid"):
        build_engine(engine_block(**LOCAL, address="no.such.host.invalid"))


def test_a_task_gets_a_block_in_the_environment_of_worker_init_and_shutdown_leaves_no_process(start, tmp_path):
    """The stand-in on PATH is what another environment's installation would be."""
    program = tmp_path / "bin" / "globus-compute-endpoint"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nshift\nCHOSEN=yes exec {sys.executable} -m endpoint.engines.python_exec "$@"\n')
    program.chmod(0o755)
    running = start(
        encrypted=False,
        provider={
            "type": "LocalProvider",
            "init_blocks": 0,
            "worker_init": f"export PATH={program.parent}:$PATH",
            "launcher": {"type": "SimpleLauncher"},
        },
    )

    chosen = "def chosen():\n    import os\n    return os.environ.get('CHOSEN')\n"
    assert value_of(running.engine.submit(source_task("chosen", chosen)).result(FIRST_RESULT)) == "yes"

    future = running.engine.submit(linger(str(tmp_path / "note")))
    wait_for(tmp_path / "note")
    worker, child = json.loads((tmp_path / "note").read_text())
    processes = {*running.processes(), psutil.Process(worker), psutil.Process(child)}
    assert len(processes) >= 5
    running.engine.shutdown()
    assert future.cancelled()
    assert psutil.wait_procs(list(processes), 5)[1] == []
    assert running.processes() == []


def test_an_interchange_that_dies_answers_every_task_and_the_endpoint_hears_of_it(start):
    running = start(provider={"type": "LocalProvider", "init_blocks": 0})
    future = running.engine.submit(double("x"))

    psutil.Process(running.interchange).kill()

    assert isinstance(future.exception(10), EngineFailure)
    assert "interchange" in str(running.failures.get(timeout=5))


def test_an_interchange_that_can_not_start_is_an_engine_failure_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        engine = build_engine(engine_block(**LOCAL, worker_port=taken.getsockname()[1]))
        with pytest.raises(EngineFailure, match="can't start its interchange"):
            engine.start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path, on_failure=pytest.fail)
    engine.shutdown()


def test_everything_dies_with_an_endpoint_that_is_killed(tmp_path):
    block = {**LOCAL, "provider": {"type": "LocalProvider", "worker_init": "export X=1"}}
    command = [sys.executable, "-m", "tests.support.engine_host", json.dumps(block), str(tmp_path)]
    host = subprocess.Popen([*command, str(tmp_path / "note")], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert host.stdout is not None
    with host.stdout:
        processes = [psutil.Process(pid) for pid in json.loads(host.stdout.readline())]

    host.kill()
    host.wait()

    assert len(processes) >= 5
    assert psutil.wait_procs(processes, 5)[1] == []

    # Nobody is left who could remove the workers' semaphores: the next start does.
    engine = build_engine(engine_block(**block))
    place = f"{tmp_path}/{engine._executor.label}"
    assert semaphores(place)
    engine.start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path, on_failure=lambda error: None)
    engine.shutdown()
    assert not semaphores(place)


def wait_for(path: Path) -> None:
    """Wait, with a child, until `path` is there."""
    subprocess.run(["sh", "-c", 'while ! test -e "$0"; do sleep 0.02; done', str(path)], timeout=40, check=True)


def semaphores(place: str) -> list[Path]:
    prefix = f"sem.gce{hashlib.sha256(place.encode()).hexdigest()[:12]}"
    return [path for path in Path("/dev/shm").iterdir() if path.name.startswith(prefix)]


USE_PARSL = (
    "def use_parsl():\n    import parsl\n"
    "    return [parsl.python_app.__name__, parsl.executors.HighThroughputExecutor.__name__]\n"
)


def test_a_task_may_use_parsl_of_which_the_pool_has_loaded_only_a_part(shared):
    future = shared.engine.submit(source_task("use_parsl", USE_PARSL))

    assert value_of(future.result(FIRST_RESULT)) == ["python_app", "HighThroughputExecutor"]
