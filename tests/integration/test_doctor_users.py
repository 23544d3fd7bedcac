"""`doctor` on an endpoint of several users, by root and by its service user, and by root on somebody's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from endpoint.errors import ExitStatus
from tests.support.accounts import Accounts, TestUser, accounts
from tests.support.doctors import Examination, local
from tests.support.hubs import clean_environment
from tests.support.ill_service import IllService
from tests.support.installed import Installed, installed

MAPPING = [
    {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [{"source": "{username}", "match": "(.*)@lab\\.example", "output": "{0}"}],
    }
]
COMMON = "account required pam_permit.so\nsession required pam_permit.so\n"


@dataclass
class Site:
    """An endpoint `lab` whose files are the service user's."""

    base: Path
    program: Path
    service_user: TestUser
    variables: dict[str, str]
    made: Accounts

    @property
    def folder(self) -> Path:
        return self.base / "compute" / "lab"

    @property
    def policy(self) -> Path:
        return self.base / "policy.json"

    def write(self, *, mapped: bool = True, engine: dict[str, Any] | None = None, **policy: Any) -> None:
        self.folder.mkdir(parents=True)
        config = {"identity_mapping_config_path": str(self.folder / "mapping.json")} if mapped else {}
        (self.folder / "config.yaml").write_text(json.dumps(config))
        (self.folder / "mapping.json").write_text(json.dumps(MAPPING))
        (self.folder / "user_config_template.yaml").write_text(json.dumps({"engine": engine or local()}))
        self.policy.write_text(json.dumps({"service_user": self.service_user.name, **policy}))
        for path in [self.folder.parent, self.folder, *self.folder.iterdir()]:
            shutil.chown(path, self.service_user.uid, self.service_user.gid)
            path.chmod(0o700 if path.is_dir() else 0o600)

    def examine(self, *, user: TestUser | None = None) -> Examination:
        who = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"] if user else []
        command = [*who, self.program, "-c", self.folder.parent, "doctor", "lab", "--policy", self.policy, "--json"]
        environment = {**self.variables, **({"HOME": str(user.home)} if user else {})}
        done = subprocess.run(
            command,
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            cwd="/",
        )
        assert done.stdout.startswith("{"), done.stderr
        return Examination(done.returncode, json.loads(done.stdout))


@pytest.fixture(scope="module")
def program() -> Iterator[Installed]:
    with installed() as made:
        yield made


@pytest.fixture
def site(program: Installed) -> Iterator[Site]:
    with accounts() as made, tempfile.TemporaryDirectory(prefix="doctor-") as base, IllService() as service:
        Path(base).chmod(0o755)
        yield Site(Path(base), program.program, made.user(system=True), service.environment, made)


def test_root_sees_the_service_user_the_policy_pam_and_the_mapping(site: Site) -> None:
    site.write(pam={"enable": True, "service_name": site.made.pam_service(COMMON)}, minimum_uid=500)
    found = site.examine()

    assert found.stage("users")["verdict"] != "failed", str(found)
    assert found.with_fact("users", "minimum_uid")["facts"]["minimum_uid"] == 500
    assert found.with_fact("users", "uid")["facts"]["uid"] == site.service_user.uid
    assert str(site.folder / "mapping.json") in [one["facts"].get("file") for one in found.findings("users", "ok")]
    assert "as the mapped user" in found.findings("interface", "not tried")[0]["words"]


def test_root_is_told_of_a_service_user_a_pam_service_and_a_policy_that_are_not_there(site: Site) -> None:
    site.write(pam={"enable": True, "service_name": "gct-no-such-service"})
    shutil.chown(site.folder, 0, 0)
    found = site.examine()
    codes = [one["code"] for one in found.findings("users", "failed")]
    assert codes == ["NOT_SERVICE_USERS", "NO_PAM_SERVICE"]
    site.policy.write_text('{"minimum_uid": "many"}')
    found = site.examine()
    assert "minimum_uid" in found.failure("users")["words"]


def test_a_mapping_that_cannot_be_read_has_its_own_exit_status(site: Site) -> None:
    site.write(pam={"enable": False})
    (site.folder / "mapping.json").write_text('[{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mapings": []}]')
    found = site.examine()
    assert found.status == ExitStatus.MAPPING_UNREADABLE
    assert found.findings("configuration", "failed")[0]["facts"]["line"] == 1


def test_two_people_for_one_account_are_a_warning(site: Site) -> None:
    site.write(pam={"enable": False})
    mapping = [{**MAPPING[0], "mappings": [{"source": "{username}", "match": "(.*)@.*", "output": "{0}"}]}]
    (site.folder / "mapping.json").write_text(json.dumps(mapping))
    (warned,) = [one for one in site.examine().findings("users", "warning") if one["code"] == "COLLISIONS"]
    assert "idmap collisions" in warned["next_step"]
    assert warned["facts"]["collisions"]


def test_the_service_user_alone_is_told_what_only_root_can_try(site: Site) -> None:
    site.write(pam={"enable": False})
    found = site.examine(user=site.service_user)
    assert found.status != ExitStatus.BAD_CONFIG, str(found)
    assert "This is not root" in found.findings("users", "not tried")[0]["words"]
    assert found.stage("credentials")["verdict"] == "ok"
    assert "mapped into memory" in str(found)


def test_root_runs_nothing_of_a_directory_that_is_anothers(site: Site) -> None:
    """Neither its jobs, nor programs that its PATH would put before the system's; nor does it write there."""
    trace = site.base / "was-run"
    commands = site.base / "bin"
    commands.mkdir()
    for name in ("sbatch", "scontrol", "sacct", "squeue", "scancel", "bash", "ps"):
        (commands / name).write_text(f"#!/bin/sh\ntouch {trace}\n")
        (commands / name).chmod(0o755)
    engine = local(worker_init=f"touch {trace}")
    site.write(mapped=False, engine=engine)
    environment = site.folder / "user_environment.yaml"
    environment.write_text(f"PATH: {commands}:/usr/bin:/bin\n")
    shutil.chown(environment, site.service_user.uid, site.service_user.gid)
    before = sorted(path.name for path in site.folder.iterdir())
    found = site.examine()

    assert not trace.exists()
    assert "root does not follow it" in found.findings("template", "not tried")[0]["words"]
    assert "another user's" in found.findings("interface", "not tried")[0]["words"]
    assert sorted(path.name for path in site.folder.iterdir()) == before
