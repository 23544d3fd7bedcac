"""What a node needs of us to run tasks, as two files that the nodes see: a zip of modules, and a script for the shell.

A Python that knows nothing of this package runs the zip. The script, which finds the zip beside itself, is what a
block starts: it chooses the Pythons. Both are written once for each release, into a directory of the endpoint's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import io
import os
import tempfile
import zipfile
from pathlib import Path

DIRECTORY = "worker"  # in the endpoint's run directory
# Of the engines: what starts a pool in a Python that has Parsl, and what makes an environment.
ENGINES = (
    "cancel_names",
    "deferred",
    "memory",
    "mpi_pool",
    "mpi_task",
    "pool_cancel",
    "pool_results",
    "pool_shared",
    "pool_task",
    "pool_workers",
    "python_exec",
    "quiet",
    "semaphores",
    "steady",
    "tree",
    "user_environment",
    "user_python",
    "worker_pool",
)
SCRIPT = "worker_pool.sh"
MAIN = "zip_main.py"
_WHEN = (2020, 1, 1, 0, 0, 0)  # of every file in the zip, so that the same files make the same zip


def write(run_dir: Path) -> Path:
    """The zip in `run_dir`; the script is beside it (`script_of`). Both are made, and older ones removed, if need be.

    Raises OSError.
    """
    packed, script = _packed(), _read("endpoint.engines", SCRIPT)
    name = f"endpoint-{hashlib.sha256(packed + script).hexdigest()[:16]}"
    folder = run_dir / DIRECTORY
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{name}.zip"
    put(script_of(path), script)
    put(path, packed)
    for old in folder.glob("endpoint-*"):
        if not old.name.startswith(name):
            with contextlib.suppress(OSError):
                old.unlink()
    return path


def script_of(path: Path) -> Path:
    """The script that goes with a zip."""
    return path.with_suffix(".sh")


def _packed() -> bytes:
    files = {"__main__.py": _read("endpoint.engines", MAIN)}
    for package in ("endpoint", "endpoint.engines", "endpoint.worker"):
        files[f"{package.replace('.', '/')}/__init__.py"] = b""
    for name in ENGINES:
        files[f"endpoint/engines/{name}.py"] = _read("endpoint.engines", f"{name}.py")
    for module in importlib.resources.files("endpoint.worker").iterdir():
        if module.name.endswith(".py"):
            files[f"endpoint/worker/{module.name}"] = module.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _WHEN), files[name])
    return buffer.getvalue()


def _read(package: str, name: str) -> bytes:
    return importlib.resources.files(package).joinpath(name).read_bytes()


def put(path: Path, content: bytes) -> None:
    """Have that file there, in full at every moment; nothing where it is there."""
    if path.exists():
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
