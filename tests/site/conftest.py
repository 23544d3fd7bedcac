"""Ansible against this machine: a folder of the test's own stands for the host's directories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.playbooks import Playbook, unprivileged_account

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    return next(distributions.glob("*.whl"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Playbook:
    """The playbook with an endpoint `site-one`, and the folder that it works in."""
    folder = tmp_path_factory.mktemp("host")
    variables = {
        "endpoint_name": "site-one",
        "endpoint_user": unprivileged_account(),
        "endpoint_prefix": str(folder / "prefix"),
        "endpoint_compute_directory": str(folder / "compute"),
        "endpoint_wheel": str(wheel),
        "endpoint_config": {"display_name": "Yes", "debug": True},
        "endpoint_user_environment": {"SCRATCH": "/scratch"},
    }
    return Playbook(REPOSITORY / "ansible" / "site.yml", folder, variables)
