"""Doctor's end of the conversation with its job, at a port as the engine's interchange would have it."""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import random
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from endpoint.errors import EngineFailure

LARGEST = 64 * 1024  # bytes of a report
PATIENCE_S = 5.0  # for one line
MOST_CONNECTIONS = 1000
TRIES = 100  # as many ports as the interchange tries
LOOK_S = 0.2
NO_PORT = "NO_PORT"  # the code of that failure


class Listener:
    """Answers whoever knows the token with the time, and takes one report. A context manager."""

    def __init__(self, address: str | None, ports: Sequence[int]) -> None:
        """address: None: all of this machine's. ports: to try, in any order. Raises EngineFailure."""
        self.token = secrets.token_hex(16)
        self.report: dict[str, Any] | None = None
        self.arrived = threading.Event()
        self._socket = _bound(address, ports)
        self.port: int = self._socket.getsockname()[1]
        self._ending = False
        self._thread = threading.Thread(target=self._serve, daemon=True, name="doctor-listener")

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._thread.join(PATIENCE_S + LOOK_S)
        self._socket.close()

    def _serve(self) -> None:
        self._socket.settimeout(LOOK_S)
        for _ in range(MOST_CONNECTIONS):
            while not self._ending:
                with contextlib.suppress(TimeoutError):
                    peer, _ = self._socket.accept()
                    break
            else:
                return
            with peer, contextlib.suppress(OSError, ValueError, RecursionError):
                self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        line = _line(peer, time.monotonic() + PATIENCE_S)
        greeting, token, words = ([*line.decode("utf-8", "replace").split(" ", 2), "", ""])[:3]
        if greeting != "doctor" or not hmac.compare_digest(token.encode(), self.token.encode()):
            return
        if words.startswith("report "):
            document = json.loads(words.removeprefix("report "))
            if isinstance(document, dict) and self.report is None:
                self.report = document
                self.arrived.set()
        peer.settimeout(PATIENCE_S)
        peer.sendall(f"doctor {time.time():.6f}\n".encode())


def _line(peer: socket.socket, deadline: float) -> bytes:
    """What comes until the end of a line, without it. Raises OSError, ValueError."""
    received = b""
    with selectors.DefaultSelector() as selector:
        selector.register(peer, selectors.EVENT_READ)
        while b"\n" not in received:
            if len(received) > LARGEST or not selector.select(max(0.0, deadline - time.monotonic())):
                raise ValueError("no line in time, or too long a one")
            piece = peer.recv(LARGEST)
            if not piece:
                raise ValueError("it ended early")
            received += piece
    return received.partition(b"\n")[0]


def _bound(address: str | None, ports: Sequence[int]) -> socket.socket:
    chosen = random.sample(list(ports), min(TRIES, len(ports)))
    reason: OSError | None = None
    for port in chosen:
        try:
            if address is None:
                return socket.create_server(("", port))
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return socket.create_server((address, port), family=family)
        except OSError as error:
            reason = error
            if error.errno != errno.EADDRINUSE:
                break
    if reason is not None and reason.errno == errno.EADDRNOTAVAIL:
        raise EngineFailure(
            f"The engine's address {address} is none of this machine's, so workers would find nobody there",
            hint="Name one in `address` of the template's engine block, or an interface with address_by_interface",
            code="BAD_ADDRESS",
        )
    raise EngineFailure(
        "None of the engine's ports is free for doctor to listen at",
        hint="Look at worker_port and worker_port_range in the template, and at what listens there: ss -ltnp",
        detail=repr(reason),
        code=NO_PORT,
    )
