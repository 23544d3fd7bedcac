"""`health` as root, on an endpoint for several users: who ran the function, and what root touches meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.cli.health import own_credentials
from endpoint.errors import ExitStatus, LoginError
from tests.support.accounts import Accounts, TestUser
from tests.support.hubs import Credentials, RunningHub, clean_environment
from tests.support.installed import Installed
from tests.support.multi_user import NAME, MultiUserEndpoint

PAM = "account required pam_permit.so\nsession required pam_permit.so\n"


class Lab:
    """One endpoint, where `alice` and `bob` are mapped to users of this machine."""

    def __init__(
        self, endpoint: MultiUserEndpoint, hub: RunningHub, people: dict[str, tuple[Credentials, str]]
    ) -> None:
        self.endpoint = endpoint
        self.people = people
        self._env = clean_environment(hub.env)

    def health(self, *arguments: str, given: str | None = None, status: int = 0) -> dict[str, Any]:
        """What root is told, with nothing of anybody's identity in the environment."""
        folder = self.endpoint.folder
        done = subprocess.run(
            [self.endpoint.program, "--config-dir", folder.parent, "health", NAME, "--json", *arguments],
            env=self._env,
            input=given or "",
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}\n{self.endpoint.logs}"
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def as_person(self, who: str) -> tuple[list[str], str]:
        """The arguments that name a requester, and what comes on standard input."""
        credentials, _ = self.people[who]
        return ["--client-id", credentials.client_id, "--client-secret-file", "-"], f"{credentials.client_secret}\n"


@pytest.fixture(scope="module")
def lab(hub: RunningHub, program: Installed, machine: Accounts) -> Iterator[Lab]:
    people = {who: (hub.client(f"health-{who}"), machine.user().name) for who in ("alice", "bob")}
    stranger = hub.client("health-stranger")
    with tempfile.TemporaryDirectory(prefix="gct-health-") as folder:
        Path(folder).chmod(0o755)
        endpoint = MultiUserEndpoint(
            Path(folder) / "site",
            programs=program.root / "bin",
            service_user=machine.user(system=True, shell="/usr/sbin/nologin").name,
            hub_env=hub.env,
            owner=hub.client("health-owner"),
            users={credentials.client_id: name for credentials, name in people.values()},
            policy={"pam": {"enable": True, "service_name": machine.pam_service(PAM)}},
        )
        with endpoint:
            yield Lab(endpoint, hub, people | {"stranger": (stranger, "")})


def test_root_learns_which_local_user_ran_a_requesters_function(lab: Lab) -> None:
    for who in ("alice", "bob"):
        arguments, given = lab.as_person(who)
        local = lab.people[who][1]

        document = lab.health(*arguments, "--user", local, given=given)

        assert document["task"]["user"] == local
    wrong = lab.health(*arguments, "--user", "root", given=given, status=ExitStatus.MAPPING_UNREADABLE)
    assert f"{local} (" in wrong["stages"][-1]["detail"]


def test_a_requester_whom_the_endpoint_does_not_map_reads_its_words(lab: Lab) -> None:
    arguments, given = lab.as_person("stranger")

    document = lab.health(*arguments, given=given, status=ExitStatus.REGISTRATION_REFUSED)

    assert [stage["state"] for stage in document["stages"]] == ["ok", "ok", "failed"]
    assert "422" in document["stages"][-1]["detail"]


def test_nothing_in_the_endpoints_directory_belongs_to_root_afterwards(lab: Lab) -> None:
    arguments, given = lab.as_person("alice")

    lab.health(*arguments, given=given)

    owners = {path.stat().st_uid for path in lab.endpoint.folder.parent.rglob("*")}
    assert owners == {lab.endpoint.folder.stat().st_uid}


def test_without_a_requester_root_says_whose_login_is_missing(lab: Lab) -> None:
    document = lab.health(status=ExitStatus.FAILED)

    assert "--client-id" in document["error"]["hint"]


def test_root_finds_the_identity_that_a_unit_hands_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET", "GLOBUS_COMPUTE_CREDENTIAL_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("endpoint.privileged.policy.DIRECTORY", tmp_path)
    values = {"client_id": "11111111-2222-4333-8444-555555555555", "client_secret": "not-to-be-seen-7f3a"}
    for what, text in values.items():
        (tmp_path / f"lab.{what}").write_text(f"{text}\n")
        (tmp_path / f"lab.{what}").chmod(0o600)

    found = own_credentials(tmp_path / "lab")

    assert found is not None
    assert vars(found) == values
    (tmp_path / "lab.client_secret").chmod(0o640)
    with pytest.raises(LoginError, match="is open to others"):
        own_credentials(tmp_path / "lab")


def test_the_hubs_files_stay_those_of_its_account_when_root_makes_a_client(service: TestUser, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir(mode=0o700)
    os.chown(folder, service.uid, service.gid)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(0o711)  # as pytest makes them, only root gets there

    def hub(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "endpoint.cli.hub", *arguments, "--directory", str(folder), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    hub("client", "create", "lab")
    hub("backup", str(tmp_path / "copy.db"))
    hub("restore", str(tmp_path / "copy.db"))

    assert {path.stat().st_uid for path in folder.iterdir()} == {service.uid}
    assert (tmp_path / "copy.db").stat().st_uid == 0
    assert len(list(folder.iterdir())) >= 3
