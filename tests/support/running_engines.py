"""A GlobusComputeEngine in this process, with blocks on this machine, for tests of what its workers do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from tests.support.engine_blocks import engine_block

FIRST_RESULT = 60  # seconds, on a machine that has other things to do


@contextmanager
def running_engine(run_dir: Path, worker_init: str = "", **options: Any) -> Iterator[Engine]:
    """It is shut down at the end."""
    block = {
        "type": "GlobusComputeEngine",
        "max_workers_per_node": 1,
        "heartbeat_period": 1,
        "provider": {"type": "LocalProvider", "worker_init": worker_init, "launcher": {"type": "SimpleLauncher"}},
        **options,
    }
    engine = build_engine(engine_block(**{name: value for name, value in block.items() if value is not None}))
    try:
        engine.start(endpoint_id=str(uuid.uuid4()), run_dir=run_dir, on_failure=print)
        yield engine
    finally:
        engine.shutdown()
