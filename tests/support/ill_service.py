"""A web service, and a way to a broker, with one thing wrong: another clock, a certificate, other answers, silence."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.web_service import OWNER, SECRET, Answer, WebService


@dataclass
class IllService(LoopbackServer):
    """A context manager.

    ahead_s: its clock minus ours. tls: speaks TLS so. broker: the address that it gives for results. version: its
    answer when asked for its version.
    """

    ahead_s: float = 0
    tls: ssl.SSLContext | None = None
    broker: str = "amqp://user:secret-of-the-broker@127.0.0.1:9/vhost"
    version: Answer = field(default_factory=lambda: Answer(200, {"api": "1.0.0"}))

    def handler_class(self) -> type[BaseHTTPRequestHandler]:
        service = self
        healthy = WebService(register=lambda _asked, _body: Answer(423, {"reason": "nothing is registered here"}))

        class Handler(QuietHandler):
            def date_time_string(self, timestamp: float | None = None) -> str:
                import time

                return super().date_time_string((time.time() if timestamp is None else timestamp) + service.ahead_s)

            def do_GET(self) -> None:
                self.answer("GET")

            def do_POST(self) -> None:
                self.answer("POST")

            def answer(self, method: str) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = service.answer(self.path) or healthy.handle(method, self.path, raw)
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler

    def answer(self, path: str) -> Answer | None:
        if "/v2/version" in path:
            return self.version
        if "/v2/get_amqp_result_connection_url" in path:
            return Answer(200, {"queue_prefix": "x.", "connection_url": self.broker})
        return None

    def __enter__(self) -> IllService:
        super().__enter__()
        if self.tls is not None:  # the same descriptor, so whoever waits for it needn't know
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        return self

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a client here, with a client identity."""
        url = f"https://localhost:{self._server.server_port}" if self.tls else self.url
        return {
            "GLOBUS_SDK_SERVICE_URL_AUTH": url,
            "GLOBUS_SDK_SERVICE_URL_COMPUTE": url,
            "GLOBUS_COMPUTE_CLIENT_ID": OWNER,
            "GLOBUS_COMPUTE_CLIENT_SECRET": SECRET,
            "no_proxy": "*",
        }


class TlsFront:
    """Speaks TLS, and hands what is inside on to 127.0.0.1:`target_port`. A context manager."""

    def __init__(self, context: ssl.SSLContext, target_port: int) -> None:
        self._context = context
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> TlsFront:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(peer, server_side=True) as inside,
            socket.create_connection(("127.0.0.1", self._target_port)) as target,
        ):
            target.sendall(inside.recv(65536))  # the client's header; its greeting comes back
            inside.sendall(target.recv(65536))
            inside.recv(65536)


class Talker:
    """Says the same to everybody. A context manager."""

    def __init__(self, words: bytes) -> None:
        self._words = words
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Talker:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with peer:
                    peer.sendall(self._words)
                    peer.recv(1000)


class Silent:
    """Takes connections, and never says a word. A context manager."""

    def __enter__(self) -> Any:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
