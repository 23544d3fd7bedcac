"""Nix with a store of its own, and a stand-in for nixpkgs that builds with this machine's Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.installed import Installed

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = """\
experimental-features = nix-command flakes
sandbox = false
build-users-group =
substituters =
max-jobs = 3
flake-registry =
"""


@dataclass(frozen=True)
class Nix:
    """The programs of Nix, at work on a copy of this checkout in `flake`."""

    folder: Path
    flake: Path
    program: Installed

    @property
    def store(self) -> Path:
        """Where all that is built lies."""
        return self.folder / "store"

    @property
    def seen(self) -> tuple[Path, ...]:
        """Folders that what is built here uses: the locked packages, and those that they are linked to."""
        return (self.program.root, Path(sysconfig.get_paths()["purelib"]))

    @property
    def environ(self) -> dict[str, str]:
        """The environment that makes Nix use what is in `folder`, and nothing of anybody else's."""
        given = {name: value for name, value in os.environ.items() if not name.startswith("NIX_")}
        own = {f"NIX_{name}_DIR": str(self.folder / name.lower()) for name in ("STORE", "STATE", "LOG", "CONF")}
        return given | own | {"XDG_CACHE_HOME": str(self.folder / "cache"), "NIX_USER_CONF_FILES": "/dev/null"}

    def run(
        self, *command: str, timeout: float = 60, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """One command, such as `nix eval .#x`; the flake's nixpkgs is the stand-in.

        env: variables for it. before: a command that starts it.
        """
        if command[0] == "nix":
            program = next((n for n, word in enumerate(command) if word == "--"), len(command))
            stand_in = ("--override-input", "nixpkgs", f"path:{self.folder / 'nixpkgs'}", "--no-write-lock-file")
            command = (*command[:program], *stand_in, *command[program:])
        return subprocess.run(
            [*before, *command],
            cwd=self.flake,
            env={**self.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def system(self, module: str, attribute: str, *, build: bool = False) -> subprocess.CompletedProcess[str]:
        """A part of the system with our modules and `module`, an expression: as JSON, or the path of what is built."""
        where = {"nixpkgs": self.folder / "nixpkgs", "flake": self.flake}
        named = " ".join(f"{name} = {path};" for name, path in where.items())
        expression = f"(import {REPOSITORY}/tests/nix/system.nix {{ {named} module = {module}; }}).{attribute}"
        program = ("nix-build", "--no-out-link") if build else ("nix-instantiate", "--eval", "--strict", "--json")
        return self.run(*program, "--expr", expression, timeout=120)

    def evaluate(self, attribute: str) -> Any:
        """The value of an output of the flake."""
        done = self.run("nix", "eval", "--json", f".#{attribute}")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def set_up(folder: Path, program: Installed) -> Nix:
    """Nix in `folder`: settings, an empty store, the stand-in for nixpkgs, a copy of the checkout.

    program: an environment with the locked packages and none of ours, which the stand-in builds with.
    """
    (folder / "conf").mkdir()
    (folder / "conf" / "nix.conf").write_text(SETTINGS)
    names = {"interpreter": str(program.base), "site": str(program.packages), "builder": sys.executable}
    copy_of_the_stand_in(folder / "nixpkgs", names)
    return Nix(folder, copy_of_the_checkout(folder / "flake"), program)


def copy_of_the_stand_in(target: Path, machine: Mapping[str, str]) -> None:
    """The stand-in for nixpkgs. machine: what `packages.nix` asks of the machine that builds."""
    shutil.copytree(REPOSITORY / "tests" / "nix" / "nixpkgs", target)
    text = "".join(f'{name} = "{value}"; ' for name, value in machine.items())
    (target / "machine.nix").write_text(f"{{ {text}}}\n")


def copy_of_the_checkout(target: Path) -> Path:
    """The files that git has or would take; a clone that is not whole is no flake of its own for every Nix."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        source = REPOSITORY / name
        if source.is_symlink() or source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    return target
