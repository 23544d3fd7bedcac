"""Nix with a store of its own, and a stand-in for nixpkgs that builds with this machine's Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = """\
experimental-features = nix-command flakes
sandbox = false
build-users-group =
substituters =
flake-registry =
"""


@dataclass(frozen=True)
class Nix:
    """The programs of Nix, at work on a copy of this checkout in `flake`."""

    folder: Path
    flake: Path

    def run(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """One command, such as `nix eval .#x`; the flake's nixpkgs is the stand-in."""
        given = {name: value for name, value in os.environ.items() if not name.startswith("NIX_")}
        own = {f"NIX_{name}_DIR": str(self.folder / name.lower()) for name in ("STORE", "STATE", "LOG", "CONF")}
        own |= {"XDG_CACHE_HOME": str(self.folder / "cache"), "NIX_USER_CONF_FILES": "/dev/null"}
        if command[0] == "nix":
            program = next((n for n, word in enumerate(command) if word == "--"), len(command))
            stand_in = ("--override-input", "nixpkgs", f"path:{self.folder / 'nixpkgs'}", "--no-write-lock-file")
            command = (*command[:program], *stand_in, *command[program:])
        return subprocess.run(command, cwd=self.flake, env=given | own, capture_output=True, text=True, timeout=timeout)

    def evaluate(self, attribute: str) -> Any:
        """The value of an output of the flake."""
        done = self.run("nix", "eval", "--json", f".#{attribute}")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def set_up(folder: Path) -> Nix:
    """Nix in `folder`: settings, an empty store, the stand-in for nixpkgs, a copy of the checkout."""
    (folder / "conf").mkdir()
    (folder / "conf" / "nix.conf").write_text(SETTINGS)
    shutil.copytree(REPOSITORY / "tests" / "nix" / "nixpkgs", folder / "nixpkgs")
    (folder / "nixpkgs" / "machine.nix").write_text(f'{{ python = "{sys.executable}"; }}\n')
    return Nix(folder, _copy_of_the_checkout(folder / "flake"))


def _copy_of_the_checkout(target: Path) -> Path:
    """The files that git has or would take; a clone that is not whole is no flake of its own for every Nix."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        source = REPOSITORY / name
        if source.is_symlink() or source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name, follow_symlinks=False)
    return target
