"""Blocks that fail, on a private Slurm: our user endpoint and the official one in one run.

`python -m bench.blocks [--seconds N] [--tasks N]`, as root; needs the packages of Slurm and RabbitMQ.

`breaks`: a `worker_init` that ends with an error; how many jobs are submitted in N seconds, when the future of one task
fails, and whether it has the shell's words. `kills`: as many tasks as asked for over three nodes, and a block is
cancelled every 10 seconds for a minute, with `max_retries_on_system_failure: 3`: answers, lost, errors.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.figures import OFFICIAL, OURS
from bench.run import private_broker
from bench.sides import OURS_BIN, Side, as_its_manager, both_sides, client_url, say
from tests.support.slurm import Slurm, slurm_cluster
from tests.support.user_endpoint import Queues, UserEndpointProcess

WORDS = "no such module: cuda/99"
BREAKS = f"echo {WORDS} >&2; exit 1"
KILL_EVERY_S, KILL_FOR_S = 10.0, 60.0
QUIET_S = 180.0  # the official endpoint asks Slurm once a minute
CONFIG = """
heartbeat_period: 5
engine:
  type: GlobusComputeEngine
  address: 127.0.0.1
  max_workers_per_node: 2
  heartbeat_period: 2
  heartbeat_threshold: 10
  max_retries_on_system_failure: 3
  job_status_kwargs: {{max_idletime: 300, strategy_period: 1}}
  provider:
    type: SlurmProvider
    exclusive: false
    init_blocks: {init}
    min_blocks: {init}
    max_blocks: 3
    walltime: "00:30:00"
    worker_init: "{worker_init}"
"""


def nothing() -> None:
    """The task of the first case."""


def nap(number):  # type: ignore[no-untyped-def]  # its source travels
    import time

    time.sleep(0.4)
    return number


@contextmanager
def running(side: Side, url: str, config: str) -> Iterator[tuple[Queues, UserEndpointProcess]]:
    """A user endpoint with queues of its own, that has told that it is there."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder,
        Queues(client_url(url), endpoint_url=url) as queues,
        UserEndpointProcess(
            queues, Path(folder), config=config, command=[str(side.program)], **as_its_manager(side, config)
        ) as endpoint,
    ):
        queues.next_heartbeat(60)
        yield queues, endpoint


def breaks(side: Side, url: str, slurm: Slurm, seconds: float) -> dict[str, Any]:
    """How an endpoint does whose blocks can't start."""
    before = {job.id for job in slurm.jobs()}
    with running(side, url, CONFIG.format(init=0, worker_init=BREAKS)) as (queues, _):
        began = time.monotonic()
        task = queues.submit(nothing)
        try:
            answer, told = queues.result_of(task, timeout=seconds), time.monotonic() - began
        except AssertionError:
            answer, told = None, None
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        jobs = len({job.id for job in slurm.jobs()} - before)
    slurm.clear()
    words = answer is not None and WORDS in str(answer.data)
    return {"seconds": seconds, "jobs": jobs, "failed_after_s": told and round(told, 1), "shells_words": words}


def kills(side: Side, url: str, slurm: Slurm, tasks: int) -> dict[str, Any]:
    """How an endpoint does whose blocks are cancelled in the midst of their tasks."""
    before = {job.id for job in slurm.jobs()}
    with running(side, url, CONFIG.format(init=3, worker_init="")) as (queues, endpoint):
        began = time.monotonic()
        wanted = {queues.submit(nap, number): number for number in range(tasks)}
        right, errors, killed, last = 0, 0, 0, time.monotonic()
        while wanted and time.monotonic() - last < QUIET_S:
            now = time.monotonic()
            if now - began < KILL_FOR_S and now - began > KILL_EVERY_S * (killed + 1):
                mine = [job for job in slurm.running() if job.id not in before]
                if mine:
                    slurm.cancel(mine[0].id)
                killed += 1
            for task in list(wanted)[:50]:
                try:
                    answer = queues.result_of(task, timeout=0.01)
                except AssertionError:
                    break
                errors += answer.error_details is not None
                right += answer.error_details is None
                del wanted[task]
                last = time.monotonic()
        if wanted:
            say(f"The end of the log of {side.name}:\n{endpoint.log[-3000:]}")
    slurm.clear()
    figures = {"tasks": tasks, "blocks_killed": killed, "right": right, "errors": errors, "lost": len(wanted)}
    return {**figures, "took_s": round(last - began, 1)}


def main() -> int:
    """Run both cases on both sides, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--ours", type=Path, default=OURS_BIN, help="the folder with our program")
    parser.add_argument("--side", choices=(OURS, OFFICIAL), help="only this one")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {"breaks": {}, "kills": {}}
    with private_broker() as url, slurm_cluster() as slurm:
        os.environ["SLURM_CONF"] = str(slurm.configuration)
        for side in both_sides(options.ours.absolute()):
            if options.side not in (None, side.name):
                continue
            say(f"{side.name}: blocks that can't start")
            found["breaks"][side.name] = breaks(side, url, slurm, options.seconds)
            say(f"{side.name}: blocks that are cancelled")
            found["kills"][side.name] = kills(side, url, slurm, options.tasks)
    for case, sides in found.items():
        for name, figures in sides.items():
            print(f"{case:8} {name:10} " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
