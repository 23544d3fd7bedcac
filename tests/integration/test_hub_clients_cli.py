"""`compute-hub client create` with an id: repeated, changed, refused; what a hub that runs makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from endpoint.errors import ExitStatus
from tests.support.hubs import RunningHub, clean_environment

SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all openid"
SECRET, OTHER_SECRET = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
ID = "0e1c6f8a-9d7b-4a53-8f2e-5d4c3b2a1908"


class Clients:
    """`compute-hub client` on one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "endpoint.cli.hub", "client", *arguments, "--directory", str(self.directory)]
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=60, env=clean_environment({})
        )

    def create(self, name: str, *options: str, secret: str | None = None, status: int = 0) -> dict[str, Any]:
        """What `client create` prints; with a secret, that comes on standard input."""
        stdin = [] if secret is None else ["--secret-stdin"]
        done = self.run("create", name, *options, *stdin, "--json", given=f"{secret}\n" if secret else "")
        assert done.returncode == status, f"{done.stdout}{done.stderr}"
        assert not secret or secret not in done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    return Clients(tmp_path)


def test_the_same_again_changes_nothing(clients: Clients) -> None:
    wanted = ["--id", ID.upper(), "--username", "Lab@Site.example"]

    first = clients.create("lab", *wanted, secret=SECRET)
    assert first == {
        "client_id": ID,
        "name": "lab",
        "username": "lab@site.example",
        "changed": True,
        "created": True,
        "updated": [],
    }
    again = clients.create("lab", *wanted, secret=SECRET)
    assert again == {**first, "changed": False, "created": False}
    assert clients.create("lab", "--id", ID)["changed"] is False, "what is not told is not compared"
    said = clients.run("create", "lab", "--id", ID).stdout
    assert said == f"Unchanged: lab@site.example (client {ID})\n"


def test_without_a_secret_one_is_made_up_once_for_a_new_client_only(clients: Clients) -> None:
    made = clients.create("lab", "--id", ID)

    assert len(made["client_secret"]) > 40
    assert made["username"] == f"{ID}@clients.auth.globus.org"
    assert "client_secret" not in clients.create("lab", "--id", ID)
    assert clients.create("lab", "--id", ID, secret=made["client_secret"])["changed"] is False


def test_what_differs_is_refused_and_named_until_it_may_be_updated(clients: Clients) -> None:
    clients.create("lab", "--id", ID, secret=SECRET)

    refused = clients.create("lab", "--id", ID, secret=OTHER_SECRET, status=ExitStatus.USAGE)
    assert refused["error"]["code"] == "CLIENT_DIFFERS"
    assert "another secret" in refused["error"]["reason"]
    updated = clients.create("lab2", "--id", ID, "--username", "lab@x.example", "--update", secret=OTHER_SECRET)
    assert updated["updated"] == ["name", "username", "secret"]
    assert clients.create("lab2", "--id", ID, "--update", secret=OTHER_SECRET)["changed"] is False


def test_a_username_belongs_to_one_identity(clients: Clients) -> None:
    clients.create("one", "--id", ID, "--username", "one@x.example")
    taken = clients.create("two", "--username", "one@x.example", status=ExitStatus.USAGE)
    assert taken["error"]["code"] == "USERNAME_TAKEN"
    of_a_client = f"{uuid.uuid4()}@clients.auth.globus.org"
    assert clients.create("three", "--username", of_a_client, status=64)["error"]["code"] == "USERNAME_TAKEN"

    assert clients.run("delete", ID).returncode == 0
    assert clients.create("two", "--username", "one@x.example")["created"], "a deleted client gives it up"
    assert clients.create("one", "--id", ID, "--username", "again@x.example")["created"], "its id comes back"


@pytest.mark.parametrize("secret", ["short", "aaaaaaaaaaaaaaaaaaaaaaaaa", "with a space 0123456789", "x" * 300])
def test_a_weak_secret_is_refused_and_not_repeated(clients: Clients, secret: str) -> None:
    refused = clients.create("lab", "--id", ID, secret=secret, status=ExitStatus.USAGE)

    assert refused["error"]["code"] == "BAD_SECRET"
    assert not json.loads(clients.run("list", "--json").stdout)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--id", "lab"], "is a UUID"),
        (["--username", "nobody"], "is not a domain"),
        (["--update"], "--update needs an --id"),
    ],
)
def test_what_makes_no_sense_is_refused(clients: Clients, options: list[str], says: str) -> None:
    assert says in clients.create("lab", *options, status=ExitStatus.USAGE)["error"]["reason"]


def test_a_persons_id_is_nobody_elses(clients: Clients, hub: RunningHub) -> None:
    here = Clients(hub.directory)
    hub.person("id-owner", "correct horse battery")
    command = [sys.executable, "-m", "endpoint.cli.hub", "user", "list", "--json", "--directory", str(hub.directory)]
    people = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout)
    (person,) = [one for one in people if one["name"] == "id-owner"]

    assert here.create("lab", "--id", person["id"], status=64)["error"]["code"] == "ID_TAKEN"
    assert here.create("lab", "--username", person["username"], status=64)["error"]["code"] == "USERNAME_TAKEN"


def test_a_new_secret_ends_the_tokens_of_the_old_one_at_a_hub_that_runs(hub: RunningHub) -> None:
    clients, client_id = Clients(hub.directory), str(uuid.uuid4())
    clients.create("rotated", "--id", client_id, "--username", "rotated@x.example", secret=SECRET)
    token = _token(hub, client_id, SECRET).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{hub.url}/v2/endpoints", headers=headers, trust_env=False).status_code == 200

    clients.create("rotated", "--id", client_id, "--update", secret=OTHER_SECRET)

    assert httpx.get(f"{hub.url}/v2/endpoints", headers=headers, trust_env=False).status_code == 401
    assert _token(hub, client_id, SECRET).status_code == 401
    answer = _token(hub, client_id, OTHER_SECRET)
    assert answer.status_code == 200
    (auth,) = answer.json()["other_tokens"]
    who = httpx.get(
        f"{hub.url}/v2/oauth2/userinfo",
        headers={"Authorization": f"Bearer {auth['access_token']}"},
        trust_env=False,
    ).json()
    assert (who["sub"], who["preferred_username"]) == (client_id, "rotated@x.example")


def _token(hub: RunningHub, client_id: str, secret: str) -> httpx.Response:
    return httpx.post(
        f"{hub.url}/v2/oauth2/token",
        auth=(client_id, secret),
        data={"grant_type": "client_credentials", "scope": SCOPE},
        trust_env=False,
    )
