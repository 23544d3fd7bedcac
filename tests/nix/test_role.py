"""Method `nix` of the role `program`: a package is built and copied, its version switched to, and gone back to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.nixes import REPOSITORY, Nix, copy_of_the_checkout

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def host(nix: Nix, tmp_path: Path) -> dict[str, Any]:
    """A host whose Nix knows of nothing: its commands have a database of their own."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexport NIX_STATE_DIR={tmp_path}/hosts-nix\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    local = {"ansible_connection": "local"}
    return {
        "all": {
            "hosts": {
                "h1": local | {"ansible_python_interpreter": str(python)},
                "localhost": local | {"ansible_python_interpreter": sys.executable},
            }
        }
    }


def flake_of(nix: Nix, folder: Path, version: str) -> Path:
    """A checkout with this version of the program, and a lock: as a site keeps it."""
    flake = copy_of_the_checkout(folder)
    project = flake / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "0.1.0"', f'version = "{version}"'))
    lock = ("nix", "flake", "lock", f"path:{flake}", "--override-input", "nixpkgs", f"path:{nix.folder}/nixpkgs")
    done = subprocess.run(lock, env=nix.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return flake


def play(nix: Nix, folder: Path, host: dict[str, Any], *installs: dict[str, Any]) -> list[str]:
    """Play the role with each of these, one after the other; what each play said."""
    (folder / "hosts.json").write_text(json.dumps(host))
    plays = [
        {
            "name": f"Number {number}",
            "hosts": "h1",
            "gather_facts": number == 0,
            "gather_subset": ["!all"],
            "vars": {
                "program_install": {"method": "nix", "prefix": str(folder / "prefix"), **install},
                "program_with_hub": False,
                "program_links_directory": str(folder),
            },
            "roles": [str(REPOSITORY / "ansible" / "roles" / "program")],
        }
        for number, install in enumerate(installs)
    ]
    (folder / "play.yml").write_text(json.dumps(plays))
    program = Path(sys.executable).with_name("ansible-playbook")
    environ = {name: value for name, value in nix.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [program, "-i", folder / "hosts.json", folder / "play.yml"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        cwd=folder,
        env=environ
        | {
            "ANSIBLE_HOME": str(folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_PIPELINING": "1",
        },
    )
    return f"{done.stdout}{done.stderr}".split("PLAY [Number ")[1:]


def changed(said: str) -> list[str]:
    """The names of the tasks of a play that changed something."""
    tasks = said.split(" : ")[1:]
    return [task.partition("]")[0] for task in tasks if "\nchanged: [" in task]


def test_role_copies_a_closure_switches_and_goes_back(nix: Nix, tmp_path: Path, host: dict[str, Any]) -> None:
    old = {"flake": f"path:{flake_of(nix, tmp_path / 'old', '0.1.0')}", "attribute": "default", "version": "0.1.0"}
    new = {"flake": f"path:{flake_of(nix, tmp_path / 'new', '0.2.0')}", "attribute": "default", "version": "0.2.0"}

    mistaken = old | {"version": "0.3.0"}

    first, again, upgrade, back, refused = play(nix, tmp_path, host, old, old, new, old, mistaken)

    assert {"Take it into the store", "Make the link, which keeps it", "Switch to the version"} <= set(changed(first))
    assert changed(again) == []
    assert {"Build the package", "Switch to the version"} <= set(changed(upgrade))
    assert changed(back) == ["Switch to the version"]
    assert "#default has the version 0.1.0, and the site wants 0.3.0" in refused
    prefix = tmp_path / "prefix"
    assert os.readlink(prefix / "current") == "0.1.0"
    versions = {version: (prefix / version).resolve() for version in ("0.1.0", "0.2.0")}
    assert len(set(versions.values())) == 2
    assert all(path.is_relative_to(nix.store) for path in versions.values())
    said = subprocess.run([tmp_path / "globus-compute-endpoint", "version"], capture_output=True, text=True, timeout=60)
    assert "version: 0.1.0" in said.stdout
    # The host's Nix keeps both.
    hosts = {**nix.environ, "NIX_STATE_DIR": f"{tmp_path}/hosts-nix"}
    roots = subprocess.run(
        ["nix-store", "--gc", "--print-roots"], env=hosts, capture_output=True, text=True, timeout=60
    )
    for version, path in versions.items():
        assert f"{prefix}/{version} -> {path}" in roots.stdout
    assert not (prefix / "0.3.0").exists()
