"""Batch jobs are killed one after the other under load, and every task is answered."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.support.slurm import NODES, Slurm
from tests.support.slurm_blocks import FIRST_RESULT, slurm_config
from tests.support.user_endpoint import Queues, UserEndpointProcess
from tests.support.waiting import wait_for

TASKS = 1000
KILLS = 6
EVERY_S = 10
WORKERS = 2  # of a block of one node


def work(note, number):
    """Runs for a third of a second; says in `note` when it begins and ends, and in which job."""
    import os
    import time

    def say(word):
        with open(note, "a") as file:
            file.write(f"{word} {number} {os.environ['SLURM_JOB_ID']} {time.time()}\n")

    say("begins")
    time.sleep(0.33)
    say("ends")
    return number


class Killer(threading.Thread):
    """Cancels the oldest of the jobs every `EVERY_S` seconds, `KILLS` times. killed: job -> when."""

    def __init__(self, slurm: Slurm) -> None:
        super().__init__()
        self.killed: dict[str, float] = {}
        self._slurm = slurm
        self._ending = threading.Event()

    def run(self) -> None:
        for _ in range(KILLS):
            if self._ending.wait(EVERY_S):
                return
            job = self._slurm.running()[0].id
            self.killed[job] = time.time()
            self._slurm.cancel(job)

    def end(self) -> None:
        self._ending.set()
        self.join()


@pytest.mark.slow  # a job is killed every ten seconds for a minute
def test_a_thousand_tasks_are_answered_while_a_block_is_killed_every_ten_seconds(slurm, broker, tmp_path):
    note = tmp_path / "note"
    config = slurm_config(
        max_workers_per_node=WORKERS,
        max_retries_on_system_failure=3,
        provider={"init_blocks": len(NODES), "max_blocks": len(NODES)},
    )
    killer = Killer(slurm)
    with Queues(broker.amqp_url) as queues, UserEndpointProcess(queues, tmp_path, config=config) as endpoint:
        assert wait_for(lambda: len(slurm.running()) == len(NODES), FIRST_RESULT), endpoint.log
        tasks = [queues.submit(work, str(note), number) for number in range(TASKS)]
        killer.start()
        try:
            answers = [queues.value_of(task, FIRST_RESULT) for task in tasks]
        finally:
            killer.end()

        assert answers == list(range(TASKS))
        assert queues.unexpected_results() == [], "each has one answer"
        assert len(killer.killed) == KILLS, "the load has lasted as long as the faults"
        assert_nothing_ran_again_without_need(note, killer.killed)


def assert_nothing_ran_again_without_need(note: Path, killed: dict[str, float]) -> None:
    """Every run of a task but its last was under way in a block when that was killed."""
    runs: dict[int, list[str]] = {}
    ended: dict[tuple[int, str], float] = {}
    for line in note.read_text().splitlines():
        word, number, job, when = line.split()
        if word == "begins":
            runs.setdefault(int(number), []).append(job)
        else:
            ended[int(number), job] = float(when)
    assert len(runs) == TASKS
    for number, jobs in runs.items():
        for job in jobs[:-1]:
            assert job in killed, f"task {number} ran in {jobs}"
            # a result on its way out of the block is lost with it
            assert ended.get((number, job), killed[job]) > killed[job] - 1, f"task {number} had ended in job {job}"
