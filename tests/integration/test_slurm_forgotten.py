"""A Slurm that soon forgets jobs that have ended."""

from __future__ import annotations

from tests.support.slurm import slurm_cluster
from tests.support.slurm_blocks import FIRST_RESULT, place, slurm_config
from tests.support.user_endpoint import Queues, UserEndpointProcess
from tests.support.waiting import wait_for


def test_a_block_whose_job_is_forgotten_before_anybody_asked_for_it_is_replaced(broker, tmp_path, monkeypatch):
    config = slurm_config(max_retries_on_system_failure=1, heartbeat_period=5, heartbeat_threshold=20)
    with slurm_cluster(memory=2) as slurm, Queues(broker.amqp_url) as queues:
        monkeypatch.setenv("SLURM_CONF", str(slurm.configuration))
        with UserEndpointProcess(queues, tmp_path, config=config) as endpoint:
            _, job, *_ = queues.value_of(queues.submit(place), FIRST_RESULT)

            slurm.cancel(job)
            assert wait_for(lambda: job not in [known.id for known in slurm.jobs()])
            task = queues.submit(place)

            _, _, block, *_ = queues.value_of(task, 2 * FIRST_RESULT)
            assert block == "1", endpoint.log
