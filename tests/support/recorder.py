"""A plain HTTP proxy before a service that remembers the secrets which pass through it."""

from __future__ import annotations

import base64
import http.client
import re
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.support.loopback import LoopbackServer, QuietHandler

_TOKEN = re.compile(r'"(?:access|refresh)_token": ?"([^"]+)"')
_PASSWORD = re.compile(r"amqps?://[^:/@]+:([^@]+)@")
_NOT_PASSED_ON = {"host", "connection", "proxy-connection", "accept-encoding", "transfer-encoding", "content-length"}


def passwords_in(text: str) -> set[str]:
    """The passwords of the broker addresses in `text`."""
    return set(_PASSWORD.findall(text))


class Recorder(LoopbackServer):
    """A context manager. secrets: tokens, client secrets and broker passwords, as they were seen on the way."""

    def __init__(self, service_url: str) -> None:
        self._service = urlsplit(service_url).netloc
        self.secrets: set[str] = set()

    def handler_class(self) -> type[BaseHTTPRequestHandler]:
        recorder = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                recorder.pass_on(self)

            do_POST = do_PUT = do_DELETE = do_GET

        return Handler

    def pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        """Ask the service the same, and answer what it answers."""
        self._note_authorization(handler.headers.get("Authorization", ""))
        asked = urlsplit(handler.path)
        path = f"{asked.path}?{asked.query}" if asked.query else asked.path
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in _NOT_PASSED_ON}
        connection = http.client.HTTPConnection(self._service, timeout=120)
        try:
            connection.request(handler.command, path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        text = content.decode(errors="replace")
        self.secrets |= passwords_in(text) | set(_TOKEN.findall(text))
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _NOT_PASSED_ON:
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _note_authorization(self, value: str) -> None:
        scheme, _, secret = value.partition(" ")
        if secret:
            self.secrets.add(secret)
        if scheme == "Basic":
            self.secrets.add(base64.b64decode(secret).decode().partition(":")[2])
