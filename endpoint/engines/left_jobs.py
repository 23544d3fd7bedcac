"""Batch jobs that an earlier run of the endpoint has left, as when it was killed: found by name, and cancelled."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from parsl.jobs.states import JobState, JobStatus

log = logging.getLogger(__name__)

Jobs = list[tuple[str, str]]


class Listing(NamedTuple):
    """How a batch system lists jobs: the command (`{user}` is the user's number), and its output as (id, name)."""

    command: str
    read: Callable[[str], Jobs]


def _columns(text: str) -> Jobs:
    return [(job, name.strip()) for job, _, name in (line.strip().partition(" ") for line in text.splitlines()) if job]


def _pbs(text: str) -> Jobs:
    """`qstat -f` of PBS and Torque: `Job Id: ID`, and below it `Job_Name = NAME`; long lines go on behind a tab."""
    jobs = text.replace("\n\t", "").split("Job Id:")[1:]
    return [
        (job.split()[0], name[1]) for job in jobs if (name := re.search(r"^\s+Job_Name = (\S+)$", job, re.MULTILINE))
    ]


def _grid_engine(text: str) -> Jobs:
    """`qstat -r`: a line that begins with the id, and below it `Full jobname: NAME`."""
    return re.findall(r"^\s*(\d+)\s[^\n]*\n\s+Full jobname:\s+(\S+)", text, re.MULTILINE)


LISTINGS = {
    "SlurmProvider": Listing("squeue --noheader --user={user} --format='%i %j'", _columns),
    "PBSProProvider": Listing("qstat -f", _pbs),
    "TorqueProvider": Listing("qstat -f", _pbs),
    "LSFProvider": Listing("bjobs -noheader -o 'jobid job_name'", _columns),
    "GridEngineProvider": Listing("qstat -r", _grid_engine),
}


def cancel_left_jobs(provider: Any, prefix: str) -> list[str]:
    """Cancel the jobs that have `prefix` in their names (Parsl may put a word before it); their ids.

    A batch system that does not answer is only logged.
    """
    listing = LISTINGS.get(type(provider).__name__)
    if listing is None:
        return []
    try:
        left = [job for job, name in _listed(provider, listing) if prefix in name]
        if left:
            log.warning("Jobs of an earlier run are cancelled: %s", ", ".join(left))
            _cancel(provider, left)
    except Exception:  # the provider's exceptions have no base
        log.exception("Whether an earlier run has left jobs can't be found out")
        return []
    return left


def _listed(provider: Any, listing: Listing) -> Jobs:
    command = listing.command.format(user=os.getuid())
    if clusters := getattr(provider, "clusters", None):
        command += f" --clusters={shlex.quote(clusters)}"
    status, output, errors = provider.execute_wait(command)
    if status != 0:
        raise RuntimeError(f"{command} ended with status {status}: {errors.strip()}")
    return listing.read(output)


def _cancel(provider: Any, jobs: list[str]) -> None:
    """The provider cancels what it knows, so it is told of them for that time."""
    provider.resources.update({job: {"job_id": job, "status": JobStatus(JobState.PENDING)} for job in jobs})
    try:
        provider.cancel(jobs)
    finally:
        for job in jobs:
            provider.resources.pop(job, None)
