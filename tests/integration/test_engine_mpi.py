"""GlobusMPIEngine with Open MPI, on nodes that are all this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from globus_compute_sdk import MPIFunction
from globus_compute_sdk.serialize import ComputeSerializer

from endpoint.engines.base import Engine, EngineTask
from endpoint.engines.build import build_engine
from endpoint.errors import EngineFailure, TaskLost, TaskRefused
from endpoint.wire.codec import encode
from endpoint.wire.messages import Task
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import die, double, mpi_task, value_of

FIRST_RESULT = 40  # seconds, on a machine that has other things to do
RANKS = "sh -c 'echo rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE'"


def mpi_block(directory: Path, *, nodes: int = 2, nodefile: int | None = None, **options: Any) -> dict[str, Any]:
    """A block whose nodes, as a batch system would tell them, are `nodes` names of this machine."""
    listed = directory / "nodes"
    listed.write_text("".join(f"{name}\n" for name in ["localhost", "127.0.0.1"][: nodefile or nodes]))
    settings = {
        "PBS_JOBID": "1.here",
        "PBS_NODEFILE": str(listed),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    provider = {
        "type": "LocalProvider",
        "nodes_per_block": nodes,
        "worker_init": "".join(f"export {name}={value}\n" for name, value in settings.items()),
        "launcher": {"type": "SimpleLauncher"},
    }
    return engine_block(type="GlobusMPIEngine", provider=provider, heartbeat_period=1, heartbeat_threshold=5, **options)


@contextmanager
def started(block: dict[str, Any], run_dir: Path) -> Iterator[Engine]:
    assert shutil.which("mpiexec"), "Open MPI is missing: run tests/support/system-packages"
    engine = build_engine(block)
    engine.start(endpoint_id=str(uuid.uuid4()), run_dir=run_dir, on_failure=print)
    try:
        yield engine
    finally:
        engine.shutdown()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine with two workers on one block of two nodes."""
    directory = tmp_path_factory.mktemp("mpi")
    with started(mpi_block(directory, max_workers_per_block=2), directory) as running:
        yield running


def test_an_mpi_function_runs_on_as_many_ranks_as_it_asks_for(engine):
    task = mpi_task(RANKS, num_nodes=1, num_ranks=2)

    assert sorted(value_of(engine.submit(task).result(FIRST_RESULT))["out"]) == ["rank 0 of 2", "rank 1 of 2"]


def test_the_sdks_mpi_function_runs_and_returns_what_its_ranks_wrote(engine):
    task_id = str(uuid.uuid4())
    serializer = ComputeSerializer()
    parts = [serializer.serialize(part) for part in (MPIFunction("echo {word}"), (), {"word": "hello"})]
    body = encode(Task(task_id, serializer.pack_buffers(parts)))

    answer = engine.submit(EngineTask(task_id, task_id, body, {"num_nodes": 2})).result(FIRST_RESULT)

    shown = serializer.deserialize(json.loads(answer[1:])["data"]["data"])
    assert (shown.returncode, shown.stdout.split()) == (0, ["hello", "hello"])
    assert shown.cmd.startswith("$PARSL_MPI_PREFIX ")


def test_ranks_are_spread_over_all_nodes_that_the_task_asks_for(engine):
    seen = value_of(engine.submit(mpi_task(RANKS, num_nodes=2, ranks_per_node=2)).result(FIRST_RESULT))

    assert sorted(seen["nodes"]) == ["127.0.0.1", "localhost"]
    assert len(seen["out"]) == 4


def test_tasks_divide_the_nodes_of_a_block_and_one_that_wants_all_waits_for_them(engine, tmp_path):
    first, second = (
        engine.submit(mpi_task("echo", str(tmp_path), name, num_nodes=1, launcher_options="--oversubscribe"))
        for name in "ab"
    )
    wait_for(tmp_path / "a")
    wait_for(tmp_path / "b")
    everything = engine.submit(mpi_task("echo", num_nodes=2))
    behind = [engine.submit(mpi_task("echo", num_nodes=nodes)) for nodes in (1, 2, 1, 2)]
    (tmp_path / "a").unlink()

    one = value_of(first.result(FIRST_RESULT))["nodes"]
    assert not everything.done()
    (tmp_path / "b").unlink()
    other = value_of(second.result(FIRST_RESULT))["nodes"]
    assert sorted(one + other) == ["127.0.0.1", "localhost"]
    assert len(value_of(everything.result(FIRST_RESULT))["nodes"]) == 2
    assert [len(value_of(future.result(FIRST_RESULT))["nodes"]) for future in behind] == [1, 2, 1, 2]


def test_a_task_that_ends_its_worker_gives_its_nodes_back(engine):
    lost = die()
    lost.resource_specification["num_nodes"] = 2

    assert isinstance(engine.submit(lost).exception(FIRST_RESULT), TaskLost)
    assert value_of(engine.submit(mpi_task("echo", num_nodes=2)).result(FIRST_RESULT))["out"]


def test_an_impossible_request_is_refused_before_any_worker_sees_it(engine):
    total = engine.status()["total_tasks"]

    with pytest.raises(TaskRefused, match="asks for 3 nodes"):
        engine.submit(mpi_task("echo", num_nodes=3))
    with pytest.raises(TaskRefused, match="has no num_nodes"):
        engine.submit(double("x"))

    assert engine.status()["total_tasks"] == total


def test_the_status_tells_what_a_block_can_run(engine):
    status = json.loads(json.dumps(engine.status(), allow_nan=False))

    assert (status["engine_type"], status["provider_type"]) == ("GlobusMPIEngine", "LocalProvider")
    assert (status["nodes_per_block"], engine.capacity) == (2, 2)


def test_a_task_for_more_nodes_than_its_block_really_has_is_answered(tmp_path):
    with started(mpi_block(tmp_path, nodes=2, nodefile=1), tmp_path) as engine:
        future = engine.submit(mpi_task("echo", num_nodes=2))

        assert "asks for 2 nodes, and its block has 1" in str(future.exception(FIRST_RESULT))
        assert value_of(engine.submit(mpi_task("echo", num_nodes=1)).result(FIRST_RESULT))["out"]


def test_blocks_that_no_batch_system_tells_of_their_nodes_fail_with_a_reason(tmp_path):
    block = mpi_block(tmp_path)
    block["provider"]["worker_init"] = "unset PBS_NODEFILE SLURM_NODELIST"

    with started(block, tmp_path) as engine:
        failure = engine.submit(mpi_task("echo", num_nodes=1)).exception(FIRST_RESULT)

    assert isinstance(failure, EngineFailure)
    assert "does not support scheduler" in str(failure)


@pytest.mark.parametrize("end", ["shutdown", "a kill of the pool"])
def test_no_rank_outlives_its_pool(tmp_path, end):
    script = tmp_path / "rank"
    script.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid.$OMPI_COMM_WORLD_RANK\nexec sleep 600\n")
    script.chmod(0o755)
    with started(mpi_block(tmp_path), tmp_path) as engine:
        future = engine.submit(mpi_task(str(script), num_nodes=1, num_ranks=2))
        for rank in range(2):
            wait_for(tmp_path / f"pid.{rank}", "-s")
        ranks = [psutil.Process(int((tmp_path / f"pid.{rank}").read_text())) for rank in range(2)]
        above = ranks[0].parents()
        pool = next(process for process in above if process.cmdline()[1:3] == ["-m", "endpoint.engines.mpi_pool"])
        processes = {*ranks, *pool.children(recursive=True)}

        if end == "shutdown":
            engine.shutdown()
            assert future.cancelled()
        else:
            pool.kill()
            assert isinstance(future.exception(FIRST_RESULT), TaskLost)

        assert psutil.wait_procs(list(processes), 5)[1] == []
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]


def wait_for(path: Path, test: str = "-e") -> None:
    """Wait, with a child, until `path` is there; with "-s", until it isn't empty."""
    subprocess.run(["sh", "-c", f'while ! test {test} "$0"; do sleep 0.02; done', str(path)], timeout=40, check=True)
