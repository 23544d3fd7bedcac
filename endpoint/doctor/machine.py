"""The endpoint's directory and the limits of its processes: room, speed, what the journal needs of a file system."""

from __future__ import annotations

import mmap
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from endpoint.doctor.findings import Finding, failed, not_tried, ok, warning
from endpoint.doctor.situation import Situation
from endpoint.errors import ExitStatus

GB = 2**30
SMALL_BYTES = 1 * GB
NO_BYTES = 20 * 2**20
FEW_INODES = 1000
WRITTEN_BYTES = 4 * 2**20
SLOW_SYNC_MS = 500.0
FEW_FILES = 1024
FEW_PROCESSES = 256
LITTLE_MEMORY = 512 * 2**20
LITTLE_SHM = 64 * 2**20
SHARED = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "fuse.sshfs", "cifs", "smb3", "afs", "ceph", "fuse.glusterfs")


def check(situation: Situation) -> Iterator[Finding]:
    yield from _space(situation.folder)
    if situation.of_another:
        yield not_tried(
            "Writing there: it is another user's directory, where root makes nothing", "Run this as its owner, too"
        )
    elif not os.access(situation.folder, os.W_OK):
        yield failed(
            f"This process may not write to {situation.folder}, where the endpoint keeps its state",
            "Run this as the endpoint's owner; if you are, look at the directory's permissions",
            code="NOT_WRITABLE",
            status=ExitStatus.BAD_CONFIG,
        )
    else:
        yield from _writing(situation.folder)
    yield from _limits()
    yield from _memory()


def _space(folder: Path) -> Iterator[Finding]:
    found = os.statvfs(folder)
    free, inodes = found.f_bavail * found.f_frsize, found.f_favail
    facts: dict[str, Any] = {
        "directory": str(folder),
        "free_bytes": free,
        "free_inodes": inodes,
        "file_system": _file_system(folder),
    }
    words = f"{folder} has {free / GB:.1f} GB free on {facts['file_system']}"
    few = found.f_files > 0 and inodes < FEW_INODES  # some file systems count none
    if free < NO_BYTES or (few and inodes == 0):
        yield failed(f"{words}: nothing can be kept there", "Make room", code="DISK_FULL", **facts)
    elif free < SMALL_BYTES or few:
        yield warning(f"{words}, and {inodes} more files", "Make room", code="DISK", **facts)
    else:
        yield ok(f"{words}, and room for {inodes} files" if found.f_files else words, **facts)


def _file_system(folder: Path) -> str:
    """Its type, by the longest mount point above the folder."""
    best, kind = "", "an unknown file system"
    for part in psutil.disk_partitions(all=True):
        if folder.resolve().is_relative_to(part.mountpoint) and len(part.mountpoint) >= len(best):
            best, kind = part.mountpoint, part.fstype
    return f"{kind} (shared)" if kind in SHARED else kind


def _writing(folder: Path) -> Iterator[Finding]:
    place = Path(tempfile.mkdtemp(prefix=".doctor-", dir=folder))
    try:
        path = place / "try"
        begin = time.monotonic()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, WRITTEN_BYTES)
            os.pwrite(descriptor, os.urandom(WRITTEN_BYTES), 0)
            os.fsync(descriptor)
            took_ms = round((time.monotonic() - begin) * 1000, 1)
            mapped = _mapped(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        yield failed(
            f"Nothing can be written to {folder}: {error.strerror}",
            "Look at the space, the quota and the permissions there",
            code="NOT_WRITABLE",
            detail=repr(error),
        )
        return
    finally:
        shutil.rmtree(place, ignore_errors=True)
    facts: dict[str, Any] = {"written_bytes": WRITTEN_BYTES, "took_ms": took_ms, "mapped": mapped}
    if not mapped:
        yield failed(
            f"Files in {folder} can't be mapped into memory and shared, which the journal of tasks needs",
            "Put the endpoint's directory onto another file system",
            code="NO_MMAP",
            **facts,
        )
    elif took_ms > SLOW_SYNC_MS:
        yield warning(
            f"4 MB take {took_ms:.0f} ms to the disk, which is slow",
            "Where the disk is always this slow, put the endpoint's directory onto another file system",
            code="SLOW_DISK",
            **facts,
        )
    else:
        yield ok(f"4 MB are on the disk in {took_ms:.0f} ms, and files can be mapped into memory", **facts)


def _mapped(descriptor: int) -> bool:
    """Whether what is written through a shared map is what others read of the file."""
    try:
        with mmap.mmap(descriptor, mmap.PAGESIZE) as mapped:
            mapped[:6] = b"mapped"
            mapped.flush()
        return os.pread(descriptor, 6, 0) == b"mapped"
    except (OSError, ValueError):
        return False


def _limits() -> Iterator[Finding]:
    files, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    facts: dict[str, Any] = {
        "open_files": _plain(files),
        "open_files_hard": _plain(most_files),
        "processes": _plain(processes),
    }
    words = f"Limits: {_told(files)} open files (hard: {_told(most_files)}), {_told(processes)} processes"
    if _few(most_files, FEW_FILES) or _few(processes, FEW_PROCESSES):
        yield warning(
            f"{words}: that is little",
            "Raise them: LimitNOFILE= and LimitNPROC= in a unit, or /etc/security/limits.conf",
            code="LIMITS",
            **facts,
        )
    else:
        yield ok(words, **facts)


def _memory() -> Iterator[Finding]:
    free, load = psutil.virtual_memory().available, os.getloadavg()[0]
    shm = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0  # noqa: S108 - looked at only
    cores = len(os.sched_getaffinity(0))
    facts: dict[str, Any] = {"memory_free_bytes": free, "shm_free_bytes": shm, "cores": cores, "load": round(load, 2)}
    words = f"{free / GB:.1f} GB of memory are free, {shm / GB:.1f} GB in /dev/shm; {cores} cores, load {load:.1f}"
    if free < LITTLE_MEMORY or shm < LITTLE_SHM:
        yield warning(f"{words}: that is little", "Make room, or let less run beside it", code="MEMORY", **facts)
    else:
        yield ok(words, **facts)


def _plain(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def _told(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _few(limit: int, least: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < least
