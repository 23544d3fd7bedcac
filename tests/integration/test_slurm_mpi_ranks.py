"""What GlobusMPIEngine's tasks start on a real Slurm, with srun and with Open MPI's mpiexec, and who ends it."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from globus_compute_sdk import MPIFunction
from globus_compute_sdk.serialize import ComputeSerializer

from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from endpoint.errors import TaskLost
from endpoint.wire.codec import encode
from endpoint.wire.messages import Task
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import mpi_task, source_task, value_of
from tests.support.slurm import NODES
from tests.support.slurm_blocks import FIRST_RESULT, mpi_options
from tests.support.user_endpoint import Queues, UserEndpointProcess, headers
from tests.support.waiting import wait_for

LAUNCHERS = ("srun", "mpiexec")
# Says which process the worker is, and runs an application that stays.
STAY = """
def stay(folder):
    import os, pathlib, subprocess
    pathlib.Path(folder, "worker").write_text(str(os.getpid()))
    subprocess.run(f"$PARSL_MPI_PREFIX {folder}/rank", shell=True)
"""


@pytest.fixture(params=LAUNCHERS)
def engine(request, slurm, tmp_path: Path) -> Iterator[Engine]:
    assert shutil.which("mpiexec"), "Open MPI is missing: run tests/support/system-packages"
    running = build_engine(engine_block(**mpi_options(request.param)))
    running.start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path / "run", on_failure=print)
    yield running
    running.shutdown()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_sdks_mpi_function_runs_on_the_nodes_of_a_job_with_as_many_ranks_as_it_asks_for(
    slurm, broker, tmp_path, launcher
):
    config = json.dumps({"heartbeat_period": 5, "engine": mpi_options(launcher)})
    serializer = ComputeSerializer()
    task_id = str(uuid.uuid4())
    function = MPIFunction("sh -c 'echo {word} $SLURMD_NODENAME'")
    buffers = serializer.pack_buffers([serializer.serialize(part) for part in (function, (), {"word": "hello"})])
    with Queues(broker.amqp_url) as queues, UserEndpointProcess(queues, tmp_path, config=config):
        wanted = json.dumps({"num_nodes": 2, "ranks_per_node": 2})
        queues.publish(encode(Task(task_id, buffers)), headers(task_id, resource_specification=wanted))
        shown = serializer.deserialize(queues.result_of(task_id, FIRST_RESULT).data)

    assert shown.returncode == 0, shown.stderr
    lines = sorted(line for line in shown.stdout.splitlines() if line.startswith("hello"))
    assert len(lines) == 4
    assert lines[0] == lines[1] != lines[2] == lines[3], lines


def test_a_worker_that_is_killed_takes_its_ranks_with_it_and_gives_its_nodes_back(engine, tmp_path):
    script = tmp_path / "rank"
    script.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/$SLURMD_NODENAME\nexec sleep 600\n")
    script.chmod(0o755)
    task = source_task("stay", STAY, str(tmp_path))
    task.resource_specification["num_nodes"] = 3
    future = engine.submit(task)
    pids = [tmp_path / node for node in NODES]
    assert wait_for(lambda: all(pid.exists() and pid.read_text().strip() for pid in pids), FIRST_RESULT)
    ranks = [psutil.Process(int(pid.read_text())) for pid in pids]

    psutil.Process(int((tmp_path / "worker").read_text())).kill()

    assert isinstance(future.exception(FIRST_RESULT), TaskLost)
    assert psutil.wait_procs(ranks, 10)[1] == []
    assert len(value_of(engine.submit(mpi_task("echo", num_nodes=3)).result(FIRST_RESULT))["nodes"]) == 3
