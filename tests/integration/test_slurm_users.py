"""Endpoints of two users on one batch system: each runs, and is refused, as its user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.support.accounts import TestUser
from tests.support.installed import Installed, installed
from tests.support.slurm_blocks import FIRST_RESULT, place, slurm_config
from tests.support.user_endpoint import Queues, UserEndpointProcess


@pytest.fixture(scope="module")
def program() -> Iterator[Installed]:
    """The program where every user can run it."""
    with installed() as made:
        yield made


def endpoint_of(user: TestUser, program: Installed, queues: Queues, **provider: Any) -> UserEndpointProcess:
    """A user endpoint as a manager starts it: as its user, in a directory of the user's."""
    directory = user.home / f"run-{queues.endpoint_id[:8]}"
    for folder in (directory, directory / "uep"):
        folder.mkdir(mode=0o700)
        os.chown(folder, user.uid, user.gid)
    become = ["/usr/bin/setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--init-groups"]
    command = [*become, "env", f"HOME={user.home}", str(program.program)]
    return UserEndpointProcess(queues, directory, config=slurm_config(provider=provider), command=command)


def test_two_endpoints_at_once_have_jobs_and_workers_of_their_own_users(slurm, broker, program):
    first, second = slurm.users
    with (
        Queues(broker.amqp_url) as ours,
        Queues(broker.amqp_url) as theirs,
        endpoint_of(first, program, ours),
        endpoint_of(second, program, theirs),
    ):
        tasks = [(queues, queues.submit(place, 0.5)) for _ in range(4) for queues in (ours, theirs)]
        seen = [queues.value_of(task, FIRST_RESULT) for queues, task in tasks]

        for user, places in ((first, seen[::2]), (second, seen[1::2])):
            assert {uid for *_, uid in places} == {user.uid}
            assert {job for _, job, *_ in places} == {job.id for job in slurm.jobs(user)}
            assert psutil.Process(places[0][3]).uids() == (user.uid,) * 3


def test_a_partition_that_only_some_users_may_use_is_refused_in_the_batch_systems_words(slurm, broker, program):
    allowed, other = slurm.users
    with Queues(broker.amqp_url) as queues, endpoint_of(allowed, program, queues, partition="closed"):
        _, job, *_ = queues.value_of(queues.submit(place), FIRST_RESULT)
        assert slurm.job(job).partition == "closed"
    with Queues(broker.amqp_url) as queues, endpoint_of(other, program, queues, partition="closed") as endpoint:
        answer = queues.result_of(queues.submit(place), FIRST_RESULT)
        assert "User's group not permitted to use this partition" in answer.data, endpoint.log
    assert "closed" not in {job.partition for job in slurm.jobs(other)}
