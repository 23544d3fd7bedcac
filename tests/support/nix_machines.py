"""A booted Debian 13 with its Nix, which is newer than this machine's, and the flake in it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.machines import Machine, make_root, remove_root
from tests.support.nixes import REPOSITORY, SETTINGS, copy_of_the_checkout, copy_of_the_stand_in

SUITE, PYTHON = "trixie", "3.13"
FLAKE, NIXPKGS, SITE = "/srv/flake", "/srv/nixpkgs", "/opt/site"
WHEELS = REPOSITORY / "dist" / "wheels"


@dataclass(frozen=True)
class NixMachine:
    """The machine, and what Nix does in it."""

    machine: Machine

    def nix(self, *words: str, timeout: float = 120) -> str:
        """A command of Nix, such as `run .#endpoint`, in the flake's folder; what it printed."""
        program = next((n for n, word in enumerate(words) if word == "--"), len(words))
        given = ("--override-input", "nixpkgs", f"path:{NIXPKGS}", "--no-write-lock-file")
        command = ("nix", *words[:program], *given, *words[program:])
        return self.machine.run("sh", "-c", f'cd {FLAKE} && exec "$@"', "nix", *command, timeout=timeout)

    def build(self, expression: str) -> str:
        """Where what `expression` builds lies."""
        said = self.machine.run("nix-build", "--no-out-link", "--expr", expression, timeout=120)
        return said.splitlines()[-1]


@contextmanager
def nix_machine() -> Iterator[NixMachine]:
    """Boot it. It needs the wheels that `make wheels` fetches."""
    folder = Path(tempfile.mkdtemp(prefix="gct-nix-"))
    root = folder / "root"
    purelib = sysconfig.get_paths()["purelib"]
    try:
        make_root(root, SUITE)
        _provide_site(root / SITE.lstrip("/"))
        copy_of_the_checkout(root / FLAKE.lstrip("/"))
        names = {
            "interpreter": f"/usr/bin/python{PYTHON}",
            "site": SITE,
            "builder": f"/usr/bin/env PYTHONPATH={purelib} /usr/bin/python{PYTHON}",
        }
        copy_of_the_stand_in(root / NIXPKGS.lstrip("/"), names)
        with Machine(root, bound=(Path(purelib),), unified=True) as machine:
            machine.write("/etc/nix/nix.conf", SETTINGS)
            install = ("apt-get", "install", "--yes", "-q", "--no-install-recommends", "nix-bin")
            machine.run("env", "DEBIAN_FRONTEND=noninteractive", *install, timeout=120)
            yield NixMachine(machine)
    finally:
        remove_root(folder)


def _provide_site(site: Path) -> None:
    """The locked packages for the machine's Python, which is not this one."""
    assert WHEELS.is_dir(), f"{WHEELS} is missing: `make wheels` makes it"
    chosen = ["--implementation", "cp", "--python-version", PYTHON, "--only-binary", ":all:"]
    for age in ("manylinux2014", "manylinux_2_17", "manylinux_2_28"):
        chosen += ["--platform", f"{age}_{sysconfig.get_platform().rpartition('-')[2]}"]
    places = ["--no-deps", "--no-index", "--find-links", str(WHEELS), "--target", str(site)]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-compile", "--platform", "any"]
    command = [sys.executable, "-m", "pip", "install", *quiet, *chosen, *places, "-r", "requirements/hub.txt"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
