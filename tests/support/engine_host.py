"""A process that runs an engine and one task without end, to be killed: `engine_host.py BLOCK RUN_DIR NOTE`.

It prints the process ids of its engine's processes, as JSON, when the task runs.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from pathlib import Path

import psutil

from endpoint.engines.build import build_engine
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import linger


def main(block: str, run_dir: str, note: str) -> None:
    engine = build_engine(engine_block(**json.loads(block)))
    engine.start(endpoint_id=str(uuid.uuid4()), run_dir=Path(run_dir), on_failure=print)
    engine.submit(linger(note))
    watch = threading.Event()
    while not Path(note).exists():
        watch.wait(0.05)
    worker, child = json.loads(Path(note).read_text())
    mine = {process.pid for process in psutil.Process().children(recursive=True)}
    line = {process.pid for process in psutil.Process(worker).parents() if process.pid not in (1, os.getpid())}
    ours = {pid for pid in line if Path(run_dir).name in " ".join(psutil.Process(pid).cmdline())}
    print(json.dumps(sorted(mine | ours | {worker, child})), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
