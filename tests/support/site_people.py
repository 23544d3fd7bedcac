"""The people who use a site: each asks an endpoint with the official SDK and an identity of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.hubs import clean_environment
from tests.support.site_documents import document_of, secrets_of
from tests.support.site_hosts import Host
from tests.support.site_plays import Site

ASK = Path(__file__).resolve().parents[2] / "examples" / "site-demo" / "ask.py"
ASK_S = 150.0


@dataclass(frozen=True)
class Answer:
    """What a function saw: the local user, its number, the host, its process; what it gave; and how long it took."""

    who: str
    user: str
    uid: int
    host: str
    pid: int
    result: str
    seconds: float


@dataclass(frozen=True)
class People:
    """Those whom the site's document has clients for.

    python: an interpreter with the official SDK. host: in whose network they are. env: what tells the SDK where the
    service is.
    """

    site: Site
    python: Path
    host: Host
    env: Mapping[str, str] = field(default_factory=dict)

    def ask(self, endpoint_id: str, *names: str) -> dict[str, Answer]:
        """Each of them has a function run, all at the same time."""
        with ThreadPoolExecutor(len(names)) as pool:
            answers = pool.map(lambda who: self._ask(endpoint_id, who), names)
            return {answer.who: answer for answer in answers}

    def _ask(self, endpoint_id: str, who: str) -> Answer:
        done = subprocess.run(
            [*self.host.network, str(self.python), str(ASK), endpoint_id],
            env=clean_environment({**self.env, **self._identity(who)}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASK_S,
        )
        assert done.returncode == 0, f"{who}: {done.stdout}{done.stderr}"
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return Answer(who, seen["user"], seen["uid"], seen["host"], seen["pid"], seen["result"], seen["seconds"])

    def _identity(self, who: str) -> dict[str, str]:
        client = document_of(self.site)["service"]["hub"]["clients"][who]
        secret = secrets_of(self.site)[client["secret"]["vault"]]
        return {"GLOBUS_COMPUTE_CLIENT_ID": client["id"], "GLOBUS_COMPUTE_CLIENT_SECRET": secret}


def local_service(url: str = "http://localhost:5000") -> dict[str, str]:
    """What a user on the hub's own host sets: the address that the official SDK has for `local`."""
    return {
        "GLOBUS_SDK_ENVIRONMENT": "local",
        "GLOBUS_SDK_SERVICE_URL_AUTH": f"{url}/",
        "GLOBUS_SDK_SERVICE_URL_COMPUTE": url,
    }


def endpoint_id(host: Host, name: str, directory: str = "/var/lib/globus-compute-endpoint") -> str:
    """The id under which an endpoint of `host` is registered."""
    text = (host.machine.root / directory.lstrip("/") / name / "endpoint.json").read_text()
    return str(json.loads(text)["endpoint_id"])
