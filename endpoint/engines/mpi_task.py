"""One task of a GlobusMPIEngine, in a worker.

Parsl's `mpiexec` speaks MPICH's options only. Where PATH has Open MPI's, the environment is put into its words.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from endpoint.engines.pool_task import run_task


def run_mpi_task(body: bytes, options: dict[str, Any]) -> bytes:
    """As `endpoint.worker.run.run_task`, for which Parsl's worker has set the environment."""
    if os.environ["PARSL_MPI_PREFIX"] == os.environ["PARSL_MPIEXEC_PREFIX"] and mpiexec_is_open_mpi():
        os.environ["PARSL_MPI_PREFIX"] = os.environ["PARSL_MPIEXEC_PREFIX"] = open_mpi_prefix(os.environ)
        os.environ.update(open_mpi_slots(os.environ))
    return run_task(body, options)


@functools.cache
def mpiexec_is_open_mpi() -> bool:
    """Whether the `mpiexec` on PATH is Open MPI's; False where there is none."""
    try:
        shown = subprocess.run(["mpiexec", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    return any(name in shown for name in ("OpenRTE", "Open MPI", "open-mpi.org"))


def open_mpi_prefix(environment: Mapping[str, str]) -> str:
    """The command that starts `num_ranks` ranks, at the most `ranks_per_node` on each of the task's nodes."""
    nodes = environment["PARSL_MPI_NODELIST"].split(",")
    hosts = ",".join(f"{node}:{environment['PARSL_RANKS_PER_NODE']}" for node in nodes)
    prefix = f"mpiexec -n {environment['PARSL_NUM_RANKS']} --host {hosts} {environment['PARSL_LAUNCHER_OPTIONS']}"
    return prefix.rstrip()


def open_mpi_slots(environment: Mapping[str, str]) -> dict[str, str]:
    """What tells Open MPI how many ranks a node of a Slurm job may have; it doesn't take that from its `--host`.

    Blocks are jobs with one (Slurm) task for each node, so it would refuse a second rank there.
    """
    nodes = environment.get("SLURM_JOB_NUM_NODES")
    return {"SLURM_TASKS_PER_NODE": f"{environment['PARSL_RANKS_PER_NODE']}(x{nodes})"} if nodes else {}
