"""Makes one archive with all that a site without internet needs: `make bundle`.

    python requirements/bundle.py [FOLDER]

writes FOLDER/compute-endpoint-VERSION-PYTHON-PLATFORM.tar.gz (FOLDER is `dist`), for hosts with this Python and this
kind of machine, and its checksum beside it. The same sources and the same locks give the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LOCKS = ("agent.txt", "hub.txt", "site.txt")
FOLDERS = ("ansible", "schemas", "docs")
GLIBC = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")  # a host has this one or a later one
BUILT = int(os.environ.get("SOURCE_DATE_EPOCH") or 1580601600)  # seconds; the time of each file, as in the wheel
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".ansible*", "*.retry")
README = REPOSITORY / "requirements" / "bundle-readme.txt"


def main() -> None:
    """Make the archive; what comes out of pip and hatchling is shown where they fail."""
    output = Path(sys.argv[1] if len(sys.argv) > 1 else REPOSITORY / "dist").absolute()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=output) as scratch:
        root = _begun(Path(scratch))
        _fill(root)
        archive = _archive(root, output)
    digest = _digest(archive)
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    _say(f"{archive} ({archive.stat().st_size / 1e6:.1f} MB)\nsha256 {digest}")


def _begun(scratch: Path) -> Path:
    """A folder whose name tells what is in it, with the project's wheel."""
    _say("Building the wheel ...")
    _run("-m", "hatchling", "build", "--target", "wheel", "--directory", str(scratch))
    (wheel,) = scratch.glob("*.whl")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    root = scratch / f"compute-endpoint-{wheel.name.split('-')[1]}-{python}-linux_{platform.machine()}"
    (root / "wheels").mkdir(parents=True)
    wheel.rename(root / "wheels" / wheel.name)
    return root


def _fill(root: Path) -> None:
    _say(f"Collecting the wheels of {', '.join(LOCKS)} ...")
    _collect(root / "wheels")
    _say("Copying playbook, roles, schemas and documents ...")
    (root / "requirements").mkdir()
    for lock in LOCKS:
        shutil.copy(REPOSITORY / "requirements" / lock, root / "requirements")
    for folder in FOLDERS:  # a link becomes what it leads to
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=LEFT_OUT)
    for file in ("LICENSE", "CHANGELOG.md"):
        shutil.copy(REPOSITORY / file, root)
    (root / "README").write_text(_readme(root.name))
    sums = [f"{_digest(path)}  {path.relative_to(root)}\n" for path in _files(root)]
    (root / "SHA256SUMS").write_text("".join(sums))


def _readme(name: str) -> str:
    version, python = name.split("-")[2], f"{sys.version_info.major}.{sys.version_info.minor}"
    title = f"compute-endpoint {version}, for hosts without internet"
    facts = {"name": name, "version": version, "python": python, "machine": platform.machine()}
    return README.read_text().format(line="=" * len(title), **facts)


def _collect(wheels: Path) -> None:
    """Locked wheels only, none built here; those that `make wheels` has fetched are not fetched again."""
    ready = REPOSITORY / "dist" / "wheels"
    _run(
        *("-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(wheels)),
        *("--implementation", "cp", "--python-version", f"{sys.version_info.major}.{sys.version_info.minor}"),
        *(f"--platform={glibc}_{platform.machine()}" for glibc in GLIBC),
        "--platform=any",
        *(["--find-links", str(ready)] if ready.is_dir() else []),
        *(f"--requirement=requirements/{lock}" for lock in LOCKS),
    )


def _archive(root: Path, output: Path) -> Path:
    """The archive of `root`: sorted, nobody's, of one time, so that only its content counts."""
    target = output / f"{root.name}.tar.gz"
    temporary = root.parent / target.name
    with (
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        entries = [root, *sorted(root.rglob("*"))]
        for number, path in enumerate(entries, 1):
            tar.add(path, path.relative_to(root.parent), recursive=False, filter=_plain)
            _count(number, len(entries))
    return temporary.replace(target)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = BUILT
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments[:4])} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def _count(number: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\rPacking {number} of {total} files" + ("\n" if number == total else ""))


if __name__ == "__main__":
    main()
