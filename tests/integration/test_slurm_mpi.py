"""GlobusMPIEngine on a real Slurm: tasks divide the nodes of a block, and start their ranks with srun or mpiexec."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from endpoint.errors import TaskRefused
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import mpi_task, value_of
from tests.support.slurm import NODES, Slurm
from tests.support.slurm_blocks import FIRST_RESULT, mpi_options
from tests.support.waiting import wait_for

WHERE = "sh -c 'echo $SLURMD_NODENAME rank $SLURM_PROCID of $SLURM_NTASKS'"


@pytest.fixture(scope="module")
def engine(slurm_machine: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One whose tasks start their ranks with srun."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(slurm_machine.configuration))
        running = build_engine(engine_block(**mpi_options("srun")))
        running.start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path_factory.mktemp("mpi"), on_failure=print)
        yield running
        running.shutdown()
        assert slurm_machine.clear() == []


def test_srun_spreads_the_ranks_of_a_task_over_the_nodes_it_asks_for(engine):
    seen = value_of(engine.submit(mpi_task(WHERE, num_nodes=3, ranks_per_node=2)).result(FIRST_RESULT))

    assert sorted(seen["nodes"]) == list(NODES)
    assert sorted(line.split()[0] for line in seen["out"]) == sorted([*NODES, *NODES])
    assert sorted(line.split(" ", 1)[1] for line in seen["out"]) == [f"rank {rank} of 6" for rank in range(6)]


def test_tasks_of_one_and_two_nodes_divide_a_block_and_one_that_wants_all_waits_for_them(engine, tmp_path):
    one, two = (engine.submit(mpi_task(WHERE, str(tmp_path), name, num_nodes=int(name))) for name in "12")
    assert wait_for(lambda: (tmp_path / "1").exists() and (tmp_path / "2").exists(), FIRST_RESULT)
    everything = engine.submit(mpi_task(WHERE, num_nodes=3))
    (tmp_path / "1").unlink()
    first = value_of(one.result(FIRST_RESULT))
    assert not everything.done()
    (tmp_path / "2").unlink()
    second = value_of(two.result(FIRST_RESULT))

    assert sorted(first["nodes"] + second["nodes"]) == list(NODES)
    for seen in (first, second):
        assert sorted(line.split()[0] for line in seen["out"]) == sorted(seen["nodes"])
    assert len(value_of(everything.result(FIRST_RESULT))["out"]) == 3


def test_ranks_and_the_launchers_options_are_what_the_task_asks_for(engine):
    uneven = engine.submit(mpi_task(WHERE, num_nodes=2, num_ranks=3, launcher_options="--label"))
    packed = engine.submit(mpi_task(WHERE, num_nodes=1, num_ranks=4))

    out = value_of(uneven.result(FIRST_RESULT))["out"]
    assert sorted(line.split(":")[0] for line in out if not line.startswith("srun: ")) == ["0", "1", "2"]
    seen = value_of(packed.result(FIRST_RESULT))
    assert [line.split()[0] for line in seen["out"]] == seen["nodes"] * 4


def test_an_impossible_request_is_refused_in_a_sentence_before_any_node_sees_it(engine):
    with pytest.raises(TaskRefused, match=r"asks for 4 nodes \(num_nodes\), and a block of this endpoint has 3"):
        engine.submit(mpi_task(WHERE, num_nodes=4))
    with pytest.raises(TaskRefused, match=r"asks for 5 ranks \(num_ranks\) on 2 nodes with 2 each"):
        engine.submit(mpi_task(WHERE, num_nodes=2, ranks_per_node=2, num_ranks=5))


def test_what_the_batch_system_can_not_do_is_told_by_the_task_in_its_words(engine):
    failure = engine.submit(mpi_task(WHERE, num_nodes=1, num_ranks=5)).result(FIRST_RESULT)

    assert "srun: error" in json.loads(failure[1:])["data"]["data"]
