"""What a worker of Parsl's calls for each task, by this module's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from endpoint.worker import run

PYTHON = "GC_USER_PYTHON"  # set by `worker_pool.sh`: the Python that worker_init chose, where the pool runs in another
ZIP = "GC_WORKER_ZIP"


def _chosen() -> Callable[[bytes, dict[str, Any]], bytes]:
    python, program = os.environ.pop(PYTHON, None), os.environ.pop(ZIP, None)
    if not python or not program:
        return run.run_task
    from endpoint.engines.user_python import UserPython

    return UserPython(python, program).run_task


run_task = _chosen()  # as `endpoint.worker.run.run_task`, in whichever Python is right
