"""MPI tasks that nobody wants any more, with Open MPI, on nodes that are all this machine."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from endpoint.engines.base import Engine, EngineTask
from endpoint.engines.build import build_engine
from endpoint.errors import TaskCancelled
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import mpi_task, source_task, value_of
from tests.support.waiting import runs, wait_for

PATIENCE_S = 60
NODES = ("localhost", "127.0.0.1")
RANKS = 2
# Every rank, and the worker, leave a file with their number.
APPLICATION = """
def application(note):
    import os, pathlib, subprocess
    (pathlib.Path(note) / "worker").write_text(str(os.getpid()))
    rank = f"sh -c 'echo $$ >{note}/rank$OMPI_COMM_WORLD_RANK.part; mv {note}/rank$OMPI_COMM_WORLD_RANK.part"
    rank += f" {note}/rank$OMPI_COMM_WORLD_RANK; exec sleep 600'"
    subprocess.run(f"$PARSL_MPI_PREFIX {rank}", shell=True)
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Two workers on one block of two nodes."""
    assert shutil.which("mpiexec"), "Open MPI is missing: run tests/support/system-packages"
    directory = tmp_path_factory.mktemp("mpi")
    listed = directory / "nodes"
    listed.write_text("".join(f"{node}\n" for node in NODES))
    settings = {
        "PBS_JOBID": "1.here",
        "PBS_NODEFILE": str(listed),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    provider = {
        "type": "LocalProvider",
        "nodes_per_block": len(NODES),
        "worker_init": "".join(f"export {name}={value}\n" for name, value in settings.items()),
        "launcher": {"type": "SimpleLauncher"},
    }
    made = build_engine(engine_block(type="GlobusMPIEngine", provider=provider, max_workers_per_block=2))
    made.start(endpoint_id=str(uuid.uuid4()), run_dir=directory, on_failure=pytest.fail)
    yield made
    made.shutdown()


def application(note: Path, **resources: int) -> EngineTask:
    note.mkdir()
    task = source_task("application", APPLICATION, str(note))
    task.resource_specification.update(resources)
    return task


def reason(future: Future[bytes]) -> str:
    """Why a task has no result; it must be that it was cancelled."""
    error = future.exception(PATIENCE_S)
    assert isinstance(error, TaskCancelled), error
    return error.failure.reason


def test_an_application_ends_with_its_ranks_and_gives_its_nodes_to_whoever_waits(engine, tmp_path):
    note = tmp_path / "first"
    task = application(note, num_nodes=2, num_ranks=RANKS)
    future = engine.submit(task)
    waiting = [mpi_task("echo", num_nodes=2) for _ in range(2)]
    futures = [engine.submit(one) for one in waiting]
    names = ["worker", *(f"rank{number}" for number in range(RANKS))]
    assert wait_for(lambda: all((note / name).exists() for name in names), PATIENCE_S)
    pids = [int((note / name).read_text()) for name in names]

    engine.cancel(waiting[0].task_id)
    assert reason(futures[0]) == "The task was cancelled before it began"
    assert not futures[1].done()
    engine.cancel(task.task_id)

    assert "The task was cancelled when it had run for" in reason(future)
    assert not any(runs(pid) for pid in pids)
    assert len(value_of(futures[1].result(PATIENCE_S))["out"]) == 2


def test_the_neighbour_on_another_node_of_the_block_goes_on(engine, tmp_path):
    note = tmp_path / "note"
    task = application(note, num_nodes=1)
    future = engine.submit(task)
    neighbour = engine.submit(mpi_task("echo", str(tmp_path), "gate", num_nodes=1))
    assert wait_for(lambda: (note / "rank0").exists() and (tmp_path / "gate").exists(), PATIENCE_S)

    engine.cancel(task.task_id)

    assert "The task was cancelled when it had run for" in reason(future)
    (tmp_path / "gate").unlink()
    assert len(value_of(neighbour.result(PATIENCE_S))["nodes"]) == 1
