"""`configure --multi-user true`, run by root: the files are the service user's, and the way on is told."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.config.model import load_manager_config
from tests.support.accounts import Accounts, TestUser
from tests.support.installed import Installed


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gct-configure-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def service(machine: Accounts) -> TestUser:
    return machine.user(system=True, shell="/usr/sbin/nologin")


def configure(program: Installed, compute_dir: Path, service_user: str) -> str:
    options = ["--multi-user", "true", "--contact-email", "admin@example.org", "--service-user", service_user]
    done = subprocess.run(
        [program.program, "--config-dir", compute_dir, "configure", "lab", *options],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/root"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_directory_and_all_in_it_belong_to_the_service_user(program, place, service):
    said = configure(program, place / "compute", service.name)

    folder = place / "compute" / "lab"
    owners = {path.stat().st_uid for path in (folder.parent, folder, *folder.iterdir())}
    assert owners == {service.uid}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert f"belongs to the service user {service.name}" in said
    assert load_manager_config(folder / "config.yaml").pam.enable, "as the policy has it by default"


def test_what_is_next_is_told_in_order(program, place, service):
    said = configure(program, place / "compute", service.name)

    steps = ["identity mapping", "/etc/pam.d/", "lab.policy.json", "client identity", "start lab"]
    places = [said.index(step, said.index("What is next")) for step in steps]
    assert places == sorted(places)
    assert "can't reach it" not in said


def test_a_directory_that_was_there_stays_its_owners(program, place, service):
    (place / "compute").mkdir()

    configure(program, place / "compute", service.name)

    assert (place / "compute").stat().st_uid == 0
    assert (place / "compute" / "lab").stat().st_uid == service.uid


def test_a_place_that_the_service_user_cannot_reach_is_told(program, place, service):
    (place / "closed").mkdir(mode=0o700)

    said = configure(program, place / "closed" / "compute", service.name)

    assert f"can't reach it, since {place / 'closed'} is closed to others" in said


def test_without_the_account_it_says_how_to_make_it(program, place):
    said = configure(program, place / "compute", "nobody-of-this-name")

    assert "useradd --system" in said
    assert f"chown -R nobody-of-this-name: {place / 'compute' / 'lab'}" in said
