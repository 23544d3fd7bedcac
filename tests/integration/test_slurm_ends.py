"""Batch jobs that end under their tasks: cancelled, out of time, or with their node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.slurm import Slurm
from tests.support.slurm_blocks import FIRST_RESULT, place, settle, slurm_config
from tests.support.user_endpoint import Queues, UserEndpointProcess
from tests.support.waiting import wait_for


@pytest.fixture
def queues(broker) -> Iterator[Queues]:
    with Queues(broker.amqp_url) as made:
        yield made


@dataclass
class Settled:
    """A task that stays, in a job: its worker, and a child that has left the worker's session."""

    task: str
    note: Path
    job: str
    processes: list[psutil.Process]


def settled(queues: Queues, directory: Path) -> Settled:
    note = directory / "note"
    task = queues.submit(settle, str(note))
    assert wait_for(note.exists, FIRST_RESULT)
    assert wait_for(lambda: note.read_text().endswith("\n"))
    worker, child, job = note.read_text().split()
    return Settled(task, note, job, [psutil.Process(int(worker)), psutil.Process(int(child))])


def test_a_cancelled_job_leaves_no_process_its_task_is_told_so_and_the_next_one_gets_a_new_job(slurm, queues, tmp_path):
    with UserEndpointProcess(queues, tmp_path, config=slurm_config()):
        it = settled(queues, tmp_path)

        slurm.cancel(it.job)

        answer = queues.result_of(it.task, FIRST_RESULT)
        assert answer.error_details.code == "TASK_LOST"
        assert "A worker was lost" in answer.data
        assert psutil.wait_procs(it.processes, 10)[1] == []
        assert wait_for(lambda: not slurm.processes())
        _, job, block, *_ = queues.value_of(queues.submit(place), FIRST_RESULT)
        assert (int(job) > int(it.job), block) == (True, "1")


def cancel(slurm: Slurm, job: str) -> None:
    slurm.cancel(job)


def end_walltime(slurm: Slurm, job: str) -> None:
    slurm.end_walltime(job)


def cut_power(slurm: Slurm, job: str) -> None:
    slurm.stop_node(slurm.job(job).nodes[0])


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (cancel, "CANCELLED"),
        # the batch system looks at the time twice a minute, and calls a node down after half of one
        pytest.param(end_walltime, "TIMEOUT", marks=pytest.mark.slow),
        pytest.param(cut_power, "NODE_FAIL", marks=pytest.mark.slow),
    ],
)
def test_a_task_whose_job_ends_runs_again_in_another_where_retries_are_allowed(
    slurm, queues, tmp_path, end: Callable[[Slurm, str], None], state
):
    config = slurm_config(max_retries_on_system_failure=1)
    with UserEndpointProcess(queues, tmp_path, config=config) as endpoint:
        it = settled(queues, tmp_path)

        end(slurm, it.job)

        assert wait_for(lambda: len(it.note.read_text().splitlines()) == 2, 120), endpoint.log
        Path(f"{it.note}.go").touch()
        assert queues.value_of(it.task, FIRST_RESULT) == 2
        assert queues.unexpected_results() == []
        assert slurm.job(it.job).state == state
        assert psutil.wait_procs(it.processes, 10)[1] == []
