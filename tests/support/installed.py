"""The program as a package installs it: where every local user can read and run it.

A checkout, its virtual environment, or the interpreter may lie where only their owner gets. So this makes a small
environment of its own: the package is copied, what it depends on is linked (or copied, where others can't get there).
"""

from __future__ import annotations

import compileall
import contextlib
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
PROGRAMS = ("globus-compute-endpoint", "gce")
NOT_COPIED = shutil.ignore_patterns("__pycache__")


@dataclass(frozen=True)
class Installed:
    """An environment; `python` imports `endpoint` also with `-I`."""

    root: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.root / "bin" / "python"

    @property
    def base(self) -> Path:
        """The interpreter that it was made with, which every user can run."""
        return (self.root / "bin" / "python").readlink()

    @property
    def program(self) -> Path:
        """The script `globus-compute-endpoint`."""
        return self.root / "bin" / PROGRAMS[0]

    @property
    def packages(self) -> Path:
        """Where its modules are."""
        return self.root / "lib" / VERSION / "site-packages"

    def put_package(self) -> None:
        """Put the package there as it is in the checkout now, in place of what is there: an upgrade, too."""
        fresh, old = self.packages / "endpoint.new", self.packages / "endpoint.old"
        shutil.copytree(REPOSITORY / "endpoint", fresh, ignore=NOT_COPIED)
        shutil.copytree(REPOSITORY / "schemas", fresh / "schemas")
        _let_all_read(fresh)
        if (self.packages / "endpoint").exists():
            (self.packages / "endpoint").rename(old)
        fresh.rename(self.packages / "endpoint")
        shutil.rmtree(old, ignore_errors=True)
        compileall.compile_dir(self.packages / "endpoint", quiet=2)


@contextlib.contextmanager
def installed(source: Path | None = None, *, ours: bool = True) -> Iterator[Installed]:
    """An environment for a while. source: the site-packages whose modules it has, else this interpreter's.

    ours: with the package as it is in the checkout; else with what `source` has, and no programs.
    """
    root = Path(tempfile.mkdtemp(prefix="gct-installed-"))
    try:
        root.chmod(0o755)
        made = Installed(root)
        _make(made, source or Path(sysconfig.get_paths()["purelib"]))
        if ours:
            _put_programs(made)
            made.put_package()
        yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _make(made: Installed, source: Path) -> None:
    base = _interpreter()
    made.packages.mkdir(parents=True)
    (made.root / "bin").mkdir()
    (made.root / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    for name in ("python", "python3"):
        (made.root / "bin" / name).symlink_to(base)
    for entry in source.iterdir():
        if entry.suffix != ".pth" and entry.name not in ("endpoint", "__pycache__"):
            _provide(entry, made.packages / entry.name)


def _put_programs(made: Installed) -> None:
    for name in PROGRAMS:
        script = made.root / "bin" / name
        script.write_text(f"#!{made.python} -I\nfrom endpoint.cli.program import main\n\nmain()\n")
        script.chmod(0o755)


def _provide(entry: Path, target: Path) -> None:
    if all_can_reach(entry):
        target.symlink_to(entry)
    elif entry.is_dir():
        shutil.copytree(entry, target, copy_function=_link)
        _let_all_read(target)
    else:
        shutil.copy2(entry, target)
        target.chmod(0o644)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _interpreter() -> Path:
    """An interpreter of this version that every user can run: this one, or the system's."""
    own = Path(sys.base_prefix) / "bin" / VERSION
    candidates = [own, *(Path(folder) / VERSION for folder in ("/usr/local/bin", "/usr/bin"))]
    for candidate in candidates:
        if candidate.exists() and all_can_reach(candidate.resolve()):
            done = subprocess.run([candidate, "-I", "-c", "import ctypes, ssl, sqlite3, venv"], capture_output=True)
            if done.returncode == 0:
                return candidate
    raise AssertionError(
        f"no {VERSION} is there that every user can run: this one is in {sys.base_prefix}; "
        "install the distribution's, or run the tests with one that lies elsewhere"
    )


def all_can_reach(path: Path) -> bool:
    """Whether any user can get to `path` and read it."""
    resolved = path.resolve()
    if not all(folder.stat().st_mode & stat.S_IXOTH for folder in resolved.parents):
        return False
    wanted = stat.S_IROTH | (stat.S_IXOTH if resolved.is_dir() else 0)
    return resolved.stat().st_mode & wanted == wanted


def _let_all_read(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else stat.S_IMODE(path.stat().st_mode) | 0o444)
