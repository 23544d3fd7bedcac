"""The Pythons of this machine, other than the one that runs the tests."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LOOK = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"
UV = REPOSITORY / ".venvs" / "peer-uv" / "bin" / "uv"
UV_CACHE = REPOSITORY / ".venvs" / "peer-uv" / "cache"  # what one run has fetched, the next one need not


@functools.cache
def pythons() -> dict[str, Path]:
    """Version ("3.13") -> the program, for every version that is installed here and really runs."""
    found: dict[str, Path] = {}
    for candidate in _candidates():
        done = subprocess.run([candidate, "-c", LOOK], capture_output=True, text=True)
        if done.returncode == 0:
            version, program = done.stdout.split()
            found.setdefault(version, Path(program))
    return found


def python(*versions: str) -> Path:
    """The first of these that is here; a test fails without."""
    for version in versions:
        if version in pythons():
            return pythons()[version]
    raise AssertionError(f"this test needs one of Python {', '.join(versions)}; here are {', '.join(pythons())}")


def another_python() -> tuple[str, Path]:
    """One of another minor version than ours, new enough for tasks: the version, and the program."""
    import sys

    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    version = next(name for name in ("3.13", "3.12", "3.11", "3.10") if name != own and name in pythons())
    return version, pythons()[version]


def uv() -> Path:
    """uv; a test fails without."""
    assert UV.exists(), f"{UV} is missing: say make peers"
    return UV


def _candidates() -> Iterator[str]:
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for path in sorted(versions.glob("*/bin/python3")):
        yield str(path)
    for folder in os.get_exec_path():
        for minor in range(6, 15):
            path = Path(folder) / f"python3.{minor}"
            if path.exists():
                yield str(path)
