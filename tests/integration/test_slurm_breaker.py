"""A real batch system and blocks that end before a worker comes up; and jobs that an earlier run has left."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from endpoint.errors import BlocksFail
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import double, value_of
from tests.support.slurm import Job, Slurm
from tests.support.user_endpoint import Queues, UserEndpointProcess

BROKEN = "conda activate nowhere || exit 1"
BLOCK = """
engine:
  type: GlobusComputeEngine
  address: 127.0.0.1
  max_workers_per_node: 1
  provider:
    type: SlurmProvider
    init_blocks: 0
    max_blocks: 3
    exclusive: false
    worker_init: {init}
heartbeat_period: 5
"""


def double_it(x):
    return 2 * x


def jobs_of(slurm: Slurm, endpoint_id: str) -> list[Job]:
    return [job for job in slurm.jobs() if endpoint_id in job.name]


@pytest.fixture
def engines(slurm: Slurm, tmp_path: Path) -> Iterator[Any]:
    started: list[Engine] = []

    def make(endpoint_id: str, **provider: Any) -> Engine:
        block = engine_block(
            address="127.0.0.1",
            max_workers_per_node=1,
            provider={"type": "SlurmProvider", "exclusive": False, **provider},
        )
        engine = build_engine(block)
        started.append(engine)
        engine.start(endpoint_id=endpoint_id, run_dir=tmp_path / str(len(started)), on_failure=print)
        return engine

    yield make
    for engine in started:
        engine.shutdown()


def test_a_worker_init_that_breaks_costs_three_jobs_and_the_future_has_the_shells_words_within_20_seconds(
    slurm, broker, tmp_path
):
    with (
        Queues(broker.amqp_url) as queues,
        UserEndpointProcess(queues, tmp_path, config=BLOCK.format(init=BROKEN)) as it,
    ):
        queues.next_heartbeat()
        before = time.monotonic()
        result = queues.result_of(queues.submit(double_it, 21), timeout=40)
        took = time.monotonic() - before

        assert result.error_details.code == "BLOCKS_FAIL"
        assert "conda: command not found" in result.data
        assert took < 20, it.log
        assert len(jobs_of(slurm, queues.endpoint_id)) == 3
        while (breaker := queues.next_heartbeat()["breaker"])["state"] == "closed":
            pass
        assert "conda: command not found" in breaker["reason"]
        assert len(jobs_of(slurm, queues.endpoint_id)) == 3, "nor later"


def test_what_slurm_says_of_a_job_that_it_refuses_is_told(slurm, engines):
    endpoint_id = str(uuid.uuid4())
    engine = engines(endpoint_id, partition="nowhere")

    error = engine.submit(double("x")).exception(20)

    assert isinstance(error, BlocksFail)
    assert "invalid partition specified: nowhere" in error.failure.for_user()
    assert jobs_of(slurm, endpoint_id) == []


def test_jobs_that_an_earlier_run_has_left_are_cancelled_at_the_start_and_nobody_elses(slurm, engines, tmp_path):
    mine, other = str(uuid.uuid4()), str(uuid.uuid4())
    script = tmp_path / "sleep.sh"
    script.write_text("#!/bin/sh\nexec sleep 300\n")
    for owner in (mine, other):
        slurm.run("sbatch", "--output=/dev/null", f"--job-name=gce-{owner}.block-0.1764111111.5", str(script))
    (left,), (theirs,) = jobs_of(slurm, mine), jobs_of(slurm, other)

    engine = engines(mine)

    assert value_of(engine.submit(double("x")).result(40)) == "xx"
    assert slurm.job(left.id).ended
    assert not slurm.job(theirs.id).ended
    slurm.cancel(theirs.id)
