"""The flake and what is in nix/, with a stand-in for nixpkgs: evaluated, checked, built and run."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from tests.support.nixes import REPOSITORY, Nix

SYSTEM = f"{platform.machine()}-linux"
FILES = [REPOSITORY / "flake.nix", *sorted((REPOSITORY / "nix").rglob("*.nix"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_is_nix(nix: Nix, file: Path) -> None:
    done = nix.run("nix-instantiate", "--parse", str(file))

    assert done.returncode == 0, done.stderr


def test_no_file_names_a_registrys_host() -> None:
    assert not [file for file in FILES if re.search(r"https?://|pypi\.org|pythonhosted", file.read_text())]


def test_flake_has_the_same_outputs_for_both_systems(nix: Nix) -> None:
    for output in ("packages", "apps"):
        for system in ("x86_64-linux", "aarch64-linux"):
            names = nix.run("nix", "eval", "--json", f".#{output}.{system}", "--apply", "builtins.attrNames").stdout
            assert names == '["default","endpoint"]', (output, system)


def test_package_is_called_as_the_project_is(nix: Nix) -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    name, version = (re.search(rf'^{key} = "(.+)"$', project, re.MULTILINE) for key in ("name", "version"))
    assert name is not None and version is not None

    assert nix.evaluate(f"packages.{SYSTEM}.default.name") == f"{name[1]}-{version[1]}"


def test_versions_come_from_the_lock(nix: Nix) -> None:
    expression = "import ./nix/locked.nix ./requirements/agent.txt"
    done = nix.run("nix-instantiate", "--eval", "--strict", "--json", "--expr", expression)

    assert done.returncode == 0, done.stderr
    locked = (REPOSITORY / "requirements" / "agent.txt").read_text()
    for name in ("parsl", "globus-identity-mapping", "ruamel-yaml", "click"):
        version = re.search(rf"^{name}==(\S+)", locked, re.MULTILINE)
        assert version is not None
        assert f'"{name}":{{"hashes":["' in done.stdout
        assert f'"version":"{version[1]}"' in done.stdout


def test_lock_without_the_archives_hash_is_refused_with_the_file_to_change(nix: Nix) -> None:
    expression = """
      let
        set = { buildPythonPackage = x: x.src; fetchPypi = x: x; };
        locked.parsl = { version = "9"; hashes = [ "00" ]; };
      in (import ./nix/python-packages.nix { python3Packages = set; inherit locked; }).parsl
    """
    done = nix.run("nix-instantiate", "--eval", "--strict", "--expr", expression)

    assert done.returncode != 0
    assert "nix/python-packages.nix: the hash of parsl is not among those of 9 in the lock" in done.stderr


def test_run_starts_the_program_out_of_the_store(nix: Nix) -> None:
    done = nix.run("nix", "run", ".#endpoint", "--", "version")

    assert done.returncode == 0, done.stderr
    assert "(compute-endpoint)" in done.stdout


def test_flake_check_builds_the_package_and_judges_every_example(nix: Nix) -> None:
    done = nix.run("nix", "flake", "check", "--print-build-logs")

    assert done.returncode == 0, done.stderr
    assert "examples> valid/user/slurm.yaml: valid" in done.stderr


def test_shell_has_what_make_needs(nix: Nix) -> None:
    done = nix.run("nix", "build", f".#devShells.{SYSTEM}.default", "--out-link", str(nix.folder / "shell"))

    assert done.returncode == 0, done.stderr
