"""The named semaphores of a worker pool, which outlive it when it is killed.

Python removes them in a process of its own, which is killed too when the endpoint is. They get a name by which the
next start of the same endpoint finds them.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing.process
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps named semaphores


def _prefix(place: str) -> str:
    return f"gce{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def name_semaphores(place: str) -> None:
    """In a pool: the semaphores of this process and its children are those of `place`, any text."""
    multiprocessing.process.current_process()._config["semprefix"] = f"/{_prefix(place)}"  # type: ignore[attr-defined]


def remove_semaphores(place: str) -> None:
    """In the endpoint, when no pool of `place` runs on this machine."""
    for left in SHARED_MEMORY.glob(f"sem.{_prefix(place)}*"):
        with contextlib.suppress(OSError):
            left.unlink()
