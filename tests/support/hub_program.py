"""A program without a secret that a person logs in from, at a hub in this process."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from endpoint.hub.people import create_person
from endpoint.hub.tokens import COMPUTE_SCOPE
from tests.support.browser import Page, read_page
from tests.support.hub_peers import InProcessHub

PASSWORD = "correct horse battery"
PROGRAM_ID = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
OTHER_ID = "11111111-1111-4111-8111-111111111111"
OWN_PAGE = "http://hub/v2/web/auth-code"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@dataclass
class Program:
    """A program without a secret that a person logs in from, and the browser that the person has."""

    hub: InProcessHub
    asks: dict[str, str] = field(default_factory=dict)

    def request(self) -> dict[str, str]:
        return {
            "client_id": PROGRAM_ID,
            "redirect_uri": OWN_PAGE,
            "scope": f"{COMPUTE_SCOPE} openid",
            "state": "a&b=c",
            "response_type": "code",
            "access_type": "offline",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **self.asks,
        }

    async def open(self) -> httpx.Response:
        asked = {name: value for name, value in self.request().items() if value}
        return await self.hub.http.get("/v2/oauth2/authorize", params=asked)

    async def send(
        self, page: Page, name: str = "alice", password: str = PASSWORD, origin: str | None = "http://hub"
    ) -> httpx.Response:
        assert page.action is not None, page.text
        form = {**page.fields, "username": name, "password": password}
        return await self.hub.http.post(page.action, data=form, headers={"Origin": origin} if origin else {})

    async def sign_in(self, name: str = "alice", password: str = PASSWORD) -> str:
        """The code."""
        answer = await self.send(read_page((await self.open()).text), name, password)
        assert answer.status_code == 303, answer.text
        return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]

    async def redeem(self, code: str, **changed: str) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": PROGRAM_ID,
            "redirect_uri": self.request()["redirect_uri"],
            "code": code,
            "code_verifier": VERIFIER,
            **changed,
        }
        return await self.hub.http.post("/v2/oauth2/token", data=form)

    async def refresh(self, token: str, client_id: str = PROGRAM_ID) -> httpx.Response:
        form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": token}
        return await self.hub.http.post("/v2/oauth2/token", data=form)

    async def log_in(self) -> dict[str, Any]:
        """The token answer."""
        answer = await self.redeem(await self.sign_in())
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def works(self, token: str) -> bool:
        """Whether the Compute service takes an access token."""
        headers = {"Authorization": f"Bearer {token}"}
        return (await self.hub.http.get("/v2/endpoints", headers=headers)).status_code == 200


async def alice(hub: InProcessHub) -> str:
    return (await create_person(hub.hub.store, "alice", PASSWORD, domain="hub.example", full_name="Alice A.")).id
