"""Tasks that nobody wants any more, in blocks of a real Slurm, and the blocks that they leave behind."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.slurm_blocks import FIRST_RESULT, place, slurm_config
from tests.support.user_endpoint import Queues, UserEndpointProcess
from tests.support.waiting import runs, wait_for

IDLE = {"max_idletime": 2, "strategy": "htex_auto_scale"}


@pytest.fixture
def queues(broker) -> Iterator[Queues]:
    with Queues(broker.amqp_url, cancels=True) as made:
        yield made


def stay(note):
    import json
    import os
    import signal
    import subprocess
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    with open(note + ".part", "w") as file:
        json.dump({"pids": [os.getpid(), child.pid], "node": os.environ["SLURMD_NODENAME"]}, file)
    os.rename(note + ".part", note)
    while True:
        time.sleep(1)


def test_tasks_on_several_nodes_are_ended_there_and_their_idle_blocks_are_given_back(slurm, queues, tmp_path):
    config = slurm_config(scaling=IDLE, provider={"max_blocks": 3}, cancel_grace=1)
    with UserEndpointProcess(queues, tmp_path, config=config) as endpoint:
        notes = [tmp_path / f"note{number}" for number in range(3)]
        tasks = [queues.submit(stay, str(note)) for note in notes]
        assert wait_for(lambda: all(note.exists() for note in notes), FIRST_RESULT), endpoint.log
        seen = [json.loads(note.read_text()) for note in notes]
        assert len({one["node"] for one in seen}) == 3
        queued = [queues.submit(place) for _ in range(4)]

        for task in [*queued, tasks[0], tasks[1]]:
            queues.cancel(task)

        told = [queues.result_of(task).data for task in queued]
        assert all("The task was cancelled before it began" in words for words in told)
        told = [queues.result_of(task).data for task in tasks[:2]]
        assert all("did not end within 1 s (SIGTERM), and were killed" in words for words in told), told
        assert not any(runs(pid) for one in seen[:2] for pid in one["pids"])
        assert all(runs(pid) for pid in seen[2]["pids"]), "the neighbour goes on"
        assert wait_for(lambda: len(slurm.running()) == 1, FIRST_RESULT), "the blocks that are empty go"

        queues.cancel(tasks[2])

        assert "were killed" in queues.result_of(tasks[2]).data
        assert wait_for(lambda: not slurm.running(), FIRST_RESULT)
        assert queues.unexpected_results() == []
