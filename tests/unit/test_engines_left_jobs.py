"""Batch jobs of an earlier run are found in what each batch system lists."""

from __future__ import annotations

import pytest

from endpoint.engines.left_jobs import LISTINGS, cancel_left_jobs

PREFIX = "gce-5a69d52b-f4d8-4b85-83d7-c1002a6986b1.block-"
NAME = f"{PREFIX}0.1764111111.25"

SLURM = f"41 {NAME}\n42 somebody-elses\n43 {PREFIX}1.1764111112.5\n"
PBS = f"""Job Id: 41.head
    Job_Name = parsl.{NAME[:54]}
\t{NAME[54:]}
    Job_Owner = me@head
    Variable_List = PBS_O_HOME=/home/me,PBS_O_NOTE=Job_Name = no

Job Id: 42.head
    Job_Name = somebody-elses

Job Id: 43.head
    Job_Name = {PREFIX}1.1764111112.5
    job_state = R
"""
GRID_ENGINE = f"""job-ID  prior   name       user  state submit/start at     queue  slots ja-task-ID
-------------------------------------------------------------------------------------
     41 0.55500 gce-5a69d5 me    r     11/25/2026 22:48:06 all.q      1
       Full jobname:     {NAME}
       Requested PE:     smp 1
     42 0.00000 somebody-e me    qw    11/25/2026 22:48:07            1
       Full jobname:     somebody-elses
     43 0.00000 gce-5a69d5 me    qw    11/25/2026 22:48:08            1
       Full jobname:     {PREFIX}1.1764111112.5
"""
LISTED = {
    "SlurmProvider": (SLURM, ["41", "43"]),
    "LSFProvider": (SLURM, ["41", "43"]),
    "PBSProProvider": (PBS, ["41.head", "43.head"]),
    "TorqueProvider": (PBS, ["41.head", "43.head"]),
    "GridEngineProvider": (GRID_ENGINE, ["41", "43"]),
}


def provider(kind: str, output: str, status: int = 0):
    """What `cancel_left_jobs` needs of one of Parsl's providers, with a batch system that lists `output`."""

    class Provider:
        clusters = None

        def __init__(self) -> None:
            self.resources: dict[str, object] = {"40": "ours"}
            self.cancelled: list[str] = []

        def execute_wait(self, command: str):
            return status, output, "no daemon" if status else ""

        def cancel(self, jobs):
            assert all(job in self.resources for job in jobs), "Parsl's providers cancel what they know"
            self.cancelled += jobs

    Provider.__name__ = kind
    return Provider()


@pytest.mark.parametrize("kind", LISTED)
def test_the_jobs_of_the_endpoint_are_cancelled_and_no_others(kind):
    output, left = LISTED[kind]
    batch = provider(kind, output)

    assert cancel_left_jobs(batch, PREFIX) == left
    assert batch.cancelled == left
    assert batch.resources == {"40": "ours"}


def test_every_listing_has_its_example():
    assert LISTED.keys() == LISTINGS.keys()


def test_a_batch_system_that_does_not_answer_is_logged_and_nothing_else(caplog):
    assert cancel_left_jobs(provider("SlurmProvider", "", status=1), PREFIX) == []
    assert "no daemon" in caplog.text


def test_where_there_is_no_batch_system_nothing_is_asked():
    assert cancel_left_jobs(provider("LocalProvider", SLURM), PREFIX) == []
