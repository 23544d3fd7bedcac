"""A worker process of ProcessPoolEngine: `python -m endpoint.engines.process_worker FD TOKENS PAGE FIFO GROUP`.

FD is a connected socket, for frames (see `worker/stream.py`). The first one from the engine holds the options that all
tasks share, as JSON. After that comes JSON again: `[ID, SERIALIZERS]`, followed by a frame with the body of that task,
or a number, so many of the tasks before it are taken back. Ours are results, and a bare newline for "ready" and for
"put back". TOKENS is an eventfd, from which one is taken before a task begins; PAGE a file for starts, or empty.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections import deque
from typing import Any

from endpoint.engines.marks import Page
from endpoint.engines.memory import keep_freed_memory
from endpoint.engines.python_exec import GONE, tie_to_endpoint
from endpoint.worker.run import run_task
from endpoint.worker.stream import RECEIVE_BYTES, FrameReader, send_frame


def main(descriptor: int, tokens: int, page: str, fifo: str, group: int) -> int:
    """Serve until the engine closes the socket."""
    if not tie_to_endpoint(fifo, group):
        return GONE
    keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with socket.socket(fileno=descriptor) as engine, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _Server(engine, tokens, Page(page) if page else None).serve()
    return 0


class _Server:
    def __init__(self, engine: socket.socket, tokens: int, page: Page | None) -> None:
        self._engine = engine
        self._tokens = tokens
        self._page = page
        self._frames = FrameReader()
        self._options: dict[str, Any] | None = None
        self._comes: tuple[str, list[str]] | None = None  # the task whose body is the next frame
        self._tasks: deque[tuple[str, list[str], bytes]] = deque()

    def serve(self) -> None:
        """Run tasks in their order; listen when there is none, or none that may begin."""
        self._send(b"\n")
        while True:
            if self._tasks and self._may_begin():
                self._run(*self._tasks.popleft())
            elif piece := self._engine.recv(RECEIVE_BYTES):
                for frame in self._frames.feed(piece):
                    self._take(frame)
            else:
                return

    def _may_begin(self) -> bool:
        try:
            return bool(os.eventfd_read(self._tokens))
        except BlockingIOError:
            return False

    def _take(self, frame: bytes) -> None:
        if self._options is None:
            self._options = json.loads(frame)
            return
        if self._comes is not None:
            self._tasks.append((*self._comes, frame))
            self._comes = None
            return
        words = json.loads(frame)
        if isinstance(words, list):
            self._comes = (words[0], words[1])
            return
        for _ in range(words):
            self._tasks.pop()
        self._send(b"\n")

    def _run(self, task_id: str, serializers: list[str], body: bytes) -> None:
        if self._page is not None:
            self._page.begin(task_id)
        options = {**(self._options or {}), "task_id": task_id, "result_serializers": serializers}
        self._send(run_task(body, options))

    def _send(self, frame: bytes) -> None:
        send_frame(self._engine, frame)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
