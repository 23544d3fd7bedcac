"""The program of ProcessPoolEngine's worker processes: `python -m endpoint.engines.process_worker FD FIFO GROUP`.

FD is a connected socket. For each task the engine sends two frames, the options as JSON and the body; the answer is
one frame, the result. The first frame of all is ours, empty: ready.
"""

from __future__ import annotations

import json
import signal
import sys
from multiprocessing.connection import Connection

from endpoint.engines.memory import keep_freed_memory
from endpoint.engines.python_exec import GONE, tie_to_endpoint
from endpoint.worker.run import run_task


def main(descriptor: int, fifo: str, group: int) -> int:
    """Serve until the engine closes the socket."""
    if not tie_to_endpoint(fifo, group):
        return GONE
    keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Connection(descriptor) as engine:
        engine.send_bytes(b"")
        while True:
            try:
                options = json.loads(engine.recv_bytes())
                body = engine.recv_bytes()
            except (EOFError, OSError):
                return 0
            engine.send_bytes(run_task(body, options))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
