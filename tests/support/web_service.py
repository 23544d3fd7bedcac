"""A stand-in for the web service, over real HTTP: it registers one endpoint, and fails when told to.

For what a healthy service would not do on request: lock, refuse, break, answer garbage, hand out other credentials.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs

from tests.support.loopback import LoopbackServer, QuietHandler

OWNER = "11111111-1111-4111-8111-111111111111"
SECRET = "a-secret-of-the-client"
COMPUTE_SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"


@dataclass
class Answer:
    """An HTTP answer; `body` is sent as JSON unless it is bytes."""

    status: int
    body: Any
    content_type: str = "application/json"


@dataclass
class WebService(LoopbackServer):
    """A context manager. `register` answers registrations: it gets the asked id (or None) and the body."""

    register: Callable[[str | None, dict[str, Any]], Answer]
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def handler_class(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self.answer("GET")

            def do_POST(self) -> None:
                self.answer("POST")

            def do_PUT(self) -> None:
                self.answer("PUT")

            def answer(self, method: str) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = service.handle(method, self.path, raw)
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a client here, with a client identity."""
        return {
            "GLOBUS_SDK_SERVICE_URL_AUTH": self.url,
            "GLOBUS_SDK_SERVICE_URL_COMPUTE": self.url,
            "GLOBUS_COMPUTE_CLIENT_ID": OWNER,
            "GLOBUS_COMPUTE_CLIENT_SECRET": SECRET,
        }

    def handle(self, method: str, path: str, raw: bytes) -> Answer:
        if path.endswith("/oauth2/token"):
            return Answer(200, _tokens(parse_qs(raw.decode())["scope"][0].split()))
        if path.endswith("/oauth2/userinfo"):
            return Answer(200, {"sub": OWNER, "identity_set": [{"sub": OWNER}], "preferred_username": "owner"})
        body = json.loads(raw) if raw else {}
        self.calls.append((method, path, body))
        if path.startswith("/v3/endpoints") and method in ("POST", "PUT"):
            asked = path.removeprefix("/v3/endpoints").strip("/") or None
            return self.register(asked, body)
        return Answer(404, {"code": "NOT_FOUND", "reason": f"no {path} here"})


def _tokens(scopes: list[str]) -> dict[str, Any]:
    """One token for each resource server asked for, with just the scopes asked of it."""
    servers: dict[str, list[str]] = {}
    for scope in dict.fromkeys(scopes):
        servers.setdefault("funcx_service" if scope == COMPUTE_SCOPE else "auth.globus.org", []).append(scope)
    first, *others = (
        {
            "access_token": f"token-for-{server}",
            "expires_in": 172800,
            "resource_server": server,
            "token_type": "Bearer",
            "scope": " ".join(wanted),
        }
        for server, wanted in servers.items()
    )
    return first | {"other_tokens": others}
