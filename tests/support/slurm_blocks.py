"""User endpoints whose engine has its blocks on a Slurm of the test's own, and functions that tell where they run."""

from __future__ import annotations

import json
from typing import Any

FIRST_RESULT = 60  # seconds: a job starts, and processes on a machine that has other things to do
QUICK = {"heartbeat_period": 1, "heartbeat_threshold": 5, "max_workers_per_node": 1}
SOON = {"strategy": "simple", "max_idletime": 120, "strategy_period": 1}


def slurm_engine(
    *, launcher: str = "SrunLauncher", scaling: dict[str, Any] | None = None, **engine: Any
) -> dict[str, Any]:
    """An `engine` block; `provider` has the options of the SlurmProvider that matter to the test."""
    provider = {
        "type": "SlurmProvider",
        "init_blocks": 0,
        "max_blocks": 1,
        "walltime": "00:05:00",
        "launcher": {"type": launcher},
        **engine.pop("provider", {}),
    }
    return {
        "type": "GlobusComputeEngine",
        "address": "127.0.0.1",
        **QUICK,
        "job_status_kwargs": {**SOON, **(scaling or {})},
        **engine,
        "provider": provider,
    }


def slurm_config(**options: Any) -> str:
    """A user endpoint's configuration, for `slurm_engine`'s options."""
    return json.dumps({"heartbeat_period": 5, "engine": slurm_engine(**options)})


def mpi_options(launcher: str) -> dict[str, Any]:
    """An `engine` block with three nodes for a block and a worker for each of them; `launcher` starts the ranks."""
    worker_init = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    block = slurm_engine(
        type="GlobusMPIEngine",
        launcher="SimpleLauncher",
        mpi_launcher=launcher,
        max_workers_per_block=3,
        provider={"nodes_per_block": 3, "worker_init": worker_init},
    )
    del block["max_workers_per_node"]
    return block


def place(seconds=0.0):  # type: ignore[no-untyped-def]
    """Where a task ran: node, job, block, the worker's process, its user."""
    import os
    import time

    time.sleep(seconds)
    names = ("SLURMD_NODENAME", "SLURM_JOB_ID", "PARSL_WORKER_BLOCK_ID")
    return [*(os.environ.get(name) for name in names), os.getpid(), os.getuid()]


def settle(note):  # type: ignore[no-untyped-def]
    """Write who is there, each time a line, and stay; a child is in a session of its own. With "go" there, answer."""
    import os
    import pathlib
    import subprocess
    import time

    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open(note, "a") as file:
        file.write(f"{os.getpid()} {child.pid} {os.environ['SLURM_JOB_ID']}\n")
    while not pathlib.Path(note + ".go").exists():
        time.sleep(0.05)
    child.kill()
    return len(pathlib.Path(note).read_text().split("\n")) - 1
