"""What an MPI task may ask for, and what its environment says; no MPI is started."""

from __future__ import annotations

import pickle
import queue
from typing import Any

import pytest

from endpoint.engines.mpi import full_specification
from endpoint.engines.mpi_pool import InOrder
from endpoint.engines.mpi_task import open_mpi_prefix, open_mpi_slots
from endpoint.errors import TaskRefused


@pytest.mark.parametrize(
    ("given", "per_node", "ranks"),
    [
        ({"num_nodes": 4}, 1, 4),
        ({"num_nodes": 2, "ranks_per_node": 3}, 3, 6),
        ({"num_nodes": 2, "num_ranks": 8}, 4, 8),
        ({"num_nodes": 2, "num_ranks": 5}, 3, 5),
        ({"num_nodes": 2, "num_ranks": 3, "ranks_per_node": 2}, 2, 3),
        ({"num_nodes": 1, "num_ranks": None, "launcher_options": None}, 1, 1),
    ],
)
def test_what_a_resource_specification_leaves_out_is_worked_out(given, per_node, ranks):
    assert full_specification(given, 4) == {
        "num_nodes": given["num_nodes"],
        "ranks_per_node": per_node,
        "num_ranks": ranks,
        "launcher_options": "",
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "has no num_nodes"),
        ({"num_ranks": 2}, "has no num_nodes"),
        ({"num_nodes": 5}, "asks for 5 nodes (num_nodes), and a block of this endpoint has 4"),
        ({"num_nodes": 0}, "num_nodes 0, which has to be"),
        ({"num_nodes": 1, "ranks_per_node": -1}, "ranks_per_node -1, which has to be"),
        ({"num_nodes": "2"}, "num_nodes '2', which has to be"),
        ({"num_nodes": 1.5}, "num_nodes 1.5, which has to be"),
        ({"num_nodes": True}, "num_nodes True, which has to be"),
        ({"num_nodes": 2, "ranks_per_node": 2, "num_ranks": 5}, "asks for 5 ranks (num_ranks) on 2 nodes with 2 each"),
        ({"num_nodes": 1, "priority": 1, "gpus": 2}, "has gpus, priority, which"),
        ({"num_nodes": 1, "launcher_options": ["-v"]}, "launcher_options that are no text"),
    ],
)
def test_an_impossible_request_is_refused_with_what_is_wrong_and_what_is_possible(given, words):
    with pytest.raises(TaskRefused) as caught:
        full_specification(given, 4)

    assert words in str(caught.value)
    assert "num_nodes (1 to 4)" in caught.value.failure.hint


def test_open_mpi_is_told_the_nodes_and_their_ranks_in_its_own_words():
    environment = {
        "PARSL_MPI_NODELIST": "n1,n2",
        "PARSL_NUM_RANKS": "3",
        "PARSL_RANKS_PER_NODE": "2",
        "PARSL_LAUNCHER_OPTIONS": "--bind-to none",
    }

    assert open_mpi_prefix(environment) == "mpiexec -n 3 --host n1:2,n2:2 --bind-to none"
    assert open_mpi_prefix(environment | {"PARSL_LAUNCHER_OPTIONS": ""}) == "mpiexec -n 3 --host n1:2,n2:2"


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """The scheduler of a block of three nodes, with plain queues."""
    (tmp_path / "nodes").write_text("a\nb\nc\n")
    monkeypatch.delenv("SLURM_NODELIST", raising=False)
    monkeypatch.setenv("PBS_NODEFILE", str(tmp_path / "nodes"))
    return InOrder(queue.Queue(), queue.Queue())


def task(number: int, nodes: int) -> dict[str, Any]:
    return {"task_id": number, "context": {"resource_spec": {"num_nodes": nodes}}}


def begun(scheduler: InOrder) -> list[int]:
    """The numbers of the tasks that were given to workers since the last call."""
    found = []
    while not scheduler.pending_task_q.empty():
        found.append(scheduler.pending_task_q.get()["task_id"])
    return found


def end(scheduler: InOrder, number: int) -> None:
    scheduler.pending_result_q.put(pickle.dumps({"type": "result", "task_id": number}))
    scheduler.get_result()


def test_mpi_tasks_begin_in_the_order_in_which_they_came(scheduler):
    for number, nodes in enumerate([2, 1, 3, 1, 2]):
        scheduler.put_task(task(number, nodes))
    assert begun(scheduler) == [0, 1]

    end(scheduler, 1)
    assert begun(scheduler) == []
    end(scheduler, 0)
    assert begun(scheduler) == [2]
    end(scheduler, 2)
    assert begun(scheduler) == [3, 4]


def test_an_mpi_task_that_no_node_list_can_hold_is_answered_and_holds_nobody_up(scheduler):
    scheduler.put_task(task(0, 4))
    scheduler.put_task(task(1, 3))

    answer = pickle.loads(scheduler.get_result())

    assert (answer["task_id"], "exception" in answer) == (0, True)
    assert begun(scheduler) == [1]


def test_open_mpi_is_told_of_the_ranks_that_a_node_of_a_slurm_job_may_have():
    environment = {"PARSL_RANKS_PER_NODE": "4"}

    assert open_mpi_slots(environment | {"SLURM_JOB_NUM_NODES": "3"}) == {"SLURM_TASKS_PER_NODE": "4(x3)"}
    assert open_mpi_slots(environment) == {}
