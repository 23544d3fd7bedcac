"""Blocks on a real Slurm: they come with load, go when idle, and have all that the provider's options ask for."""

from __future__ import annotations

import pytest

from tests.support.slurm import NODES
from tests.support.slurm_blocks import FIRST_RESULT, place, slurm_config
from tests.support.user_endpoint import Queues, UserEndpointProcess
from tests.support.waiting import wait_for

IDLE = {"max_idletime": 2, "strategy": "htex_auto_scale"}


@pytest.fixture
def queues(broker):
    with Queues(broker.amqp_url) as made:
        yield made


def test_a_block_of_several_nodes_has_workers_on_each_of_them(slurm, queues, tmp_path):
    with UserEndpointProcess(queues, tmp_path, config=slurm_config(provider={"nodes_per_block": 3})) as endpoint:
        seen: set[tuple[str, ...]] = set()
        while {node for node, *_ in seen} != set(NODES):
            tasks = [queues.submit(place, 0.2) for _ in range(6)]
            seen |= {tuple(queues.value_of(task, FIRST_RESULT)[:3]) for task in tasks}

        [job] = slurm.running()
        assert seen == {(node, job.id, "0") for node in NODES}
        assert job.nodes == list(NODES)

        while len((nodes := queues.next_heartbeat()["node_info"]).get(job.id, [])) < 3:
            assert endpoint.process.poll() is None
        assert [(node["block_id"], node["worker_count"]) for node in nodes[job.id]] == [("0", 1)] * 3


def test_blocks_come_with_load_and_go_when_idle_and_nothing_is_left_at_the_end(slurm, queues, tmp_path):
    config = slurm_config(scaling=IDLE, provider={"max_blocks": 3})
    with UserEndpointProcess(queues, tmp_path, config=config) as endpoint:
        queues.next_heartbeat()
        assert slurm.running() == [], "nobody has asked for anything"

        first = queues.value_of(queues.submit(place), FIRST_RESULT)
        assert [job.id for job in slurm.running()] == [first[1]]
        tasks = [queues.submit(place, 1.5) for _ in range(12)]
        seen = {tuple(queues.value_of(task, FIRST_RESULT)[:3]) for task in tasks}

        assert {node for node, *_ in seen} == set(NODES), endpoint.log
        assert {block for *_, block in seen} == {"0", "1", "2"}
        assert wait_for(lambda: not slurm.running()), "idle blocks are given up"
        assert queues.value_of(queues.submit(place), FIRST_RESULT)[2] == "3", "and a new one comes with the next task"

    assert wait_for(lambda: not slurm.running())
    assert wait_for(lambda: not slurm.processes()), slurm.processes()


def test_the_providers_options_reach_the_batch_system(slurm, queues, tmp_path):
    provider = {
        "partition": "short",
        "account": "physics",
        "scheduler_options": "#SBATCH --comment=for-the-test\n#SBATCH --nodelist=n2",
        "walltime": "00:01:00",
        "mem_per_node": 2,
        "cores_per_node": 2,
        "exclusive": False,
    }
    with UserEndpointProcess(queues, tmp_path, config=slurm_config(provider=provider)):
        node, number, *_ = queues.value_of(queues.submit(place), FIRST_RESULT)

        job = slurm.job(number)
        shown = slurm.run("scontrol", "--oneliner", "show", "job", number)
        assert (job.partition, job.account, job.comment) == ("short", "physics", "for-the-test")
        assert (node, job.nodes) == ("n2", ["n2"])
        for words in ("TimeLimit=00:01:00", "MinMemoryNode=2G", "CPUs/Task=2", "OverSubscribe=OK"):
            assert words in shown

        while not (beat := queues.next_heartbeat()).get("managers"):
            pass
        assert (beat["queue"], beat["account"]) == ("short", "physics")


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ({"partition": "nowhere"}, "invalid partition specified: nowhere"),
        ({"scheduler_options": "#SBATCH --reservation=never"}, "Requested reservation is invalid"),
        ({"walltime": "10:00:00", "partition": "short", "scheduler_options": "#SBATCH --no-such"}, "no-such"),
    ],
)
def test_what_the_batch_system_refuses_is_told_in_its_own_words(slurm, queues, tmp_path, provider, words):
    with UserEndpointProcess(queues, tmp_path, config=slurm_config(provider=provider)) as endpoint:
        answer = queues.result_of(queues.submit(place), FIRST_RESULT)

        assert answer.error_details is not None
        assert words in answer.data
        assert words in endpoint.log
    assert slurm.running() == []
