"""The flake and what is in nix/, with a stand-in for nixpkgs: evaluated, checked, built and run."""

from __future__ import annotations

import json
import platform
import re

import pytest

from tests.support.nixes import REPOSITORY, Nix

SYSTEM = f"{platform.machine()}-linux"
FILES = [REPOSITORY / "flake.nix", *sorted((REPOSITORY / "nix").rglob("*.nix"))]
STAND_IN = sorted((REPOSITORY / "tests" / "nix").rglob("*.nix"))
PACKAGES = ["bundle", "default", "endpoint", "hub", "worker"]


def test_files_are_nix(nix: Nix) -> None:
    done = nix.run("nix-instantiate", "--parse", *map(str, [*FILES, *STAND_IN]))

    assert done.returncode == 0, done.stderr


def test_no_file_names_a_registrys_host() -> None:
    hosts = re.compile(r"pypi\.|pythonhosted|npmjs|crates\.io|cache\.nixos\.org|cachix")
    assert not [file for file in FILES if hosts.search(file.read_text())]


def test_flake_has_the_same_outputs_for_both_systems(nix: Nix) -> None:
    shown = json.loads(nix.run("nix", "flake", "show", "--json").stdout)

    tests = [file.stem for file in (REPOSITORY / "nix" / "checks").iterdir()]
    wanted = {
        "packages": PACKAGES,
        "apps": ["default", "demo", "endpoint", "hub"],
        "checks": sorted(["endpoint", "examples", "hub", *tests]),
        "devShells": ["default", "site"],
    }
    for output, names in wanted.items():
        for system in ("x86_64-linux", "aarch64-linux"):
            assert list(shown[output][system]) == names, (output, system)
    assert set(shown["formatter"]) == {"x86_64-linux", "aarch64-linux"}
    assert set(shown["nixosModules"]) == {"default", "endpoint", "hub"}
    assert set(shown["overlays"]) == {"default"}
    assert set(shown) == {*wanted, "formatter", "nixosModules", "overlays"}


def test_overlay_brings_the_same_programs(nix: Nix) -> None:
    apply = f'overlay: let pkgs = (builtins.getFlake "path:{nix.folder}/nixpkgs").legacyPackages.{SYSTEM}; in '
    names = "let found = overlay pkgs { }; in [ found.globus-compute-endpoint.outPath found.compute-hub.outPath ]"
    done = nix.run("nix", "eval", "--impure", "--json", ".#overlays.default", "--apply", apply + names)

    assert done.returncode == 0, done.stderr
    ours = [nix.evaluate(f"packages.{SYSTEM}.{name}.outPath") for name in ("endpoint", "hub")]
    assert json.loads(done.stdout) == ours


def test_examples_flake_is_a_system_with_our_modules(nix: Nix) -> None:
    given = ("--override-input", "compute-endpoint", f"path:{nix.flake}")
    done = nix.run(
        "nix",
        "eval",
        "--raw",
        f"path:{nix.flake}/nix/example#nixosConfigurations.compute1.config.system.build.toplevel.name",
        *given,
    )

    assert (done.returncode, done.stdout) == (0, "system"), done.stderr


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


@pytest.mark.parametrize(
    ("example", "status", "said"),
    [
        ("valid/endpoint/everything.yaml", 0, "valid/endpoint/everything.yaml: valid (configuration of an endpoint)"),
        ("invalid/endpoint/misspelled.yaml", 78, "misspelled.yaml:3:1: hight_assurance: there is no such option here"),
    ],
)
def test_run_judges_examples(nix: Nix, example: str, status: int, said: str) -> None:
    file = nix.flake / "schemas" / "examples" / example
    done = nix.run("nix", "run", ".#endpoint", "--", "check-config", "--alone", "--kind", "endpoint", str(file))

    assert done.returncode == status
    assert said in done.stdout + done.stderr


def test_flake_check_builds_the_package_and_judges_every_example(nix: Nix) -> None:
    done = nix.run("nix", "flake", "check", "--print-build-logs")

    assert done.returncode == 0, done.stderr
    assert "examples> valid/user/slurm.yaml: valid" in done.stderr


def test_shells_have_what_make_and_ansible_need(nix: Nix) -> None:
    shells = [f".#devShells.{SYSTEM}.{name}" for name in ("default", "site")]
    done = nix.run("nix", "build", *shells, "--out-link", str(nix.folder / "shell"))

    assert done.returncode == 0, done.stderr
