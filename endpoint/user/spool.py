"""Tasks whose delivery is older than a broker waits for an acknowledgement, kept whole on the disk.

A task is written under a temporary name, forced to the disk, renamed, and the directory is forced too; then the broker
may forget it. The file leaves when the answer is confirmed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

UNFINISHED = ".part"


class KeptDelivery:
    """A task in the spool; settled like a delivery of the broker's."""

    kept = True

    def __init__(self, path: Path, headers: dict[str, Any], body: bytes) -> None:
        self.headers = headers
        self.body = body
        self._path = path

    def ack(self) -> None:
        """It is answered."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
            _sync_directory(self._path.parent)

    def reject(self, *, requeue: bool = False) -> None:
        """The next process finds it (`requeue`), or it is dropped."""
        if not requeue:
            self.ack()


class Spool:
    """The directory of the tasks that only this disk has."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError."""
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        for part in directory.glob(f"*{UNFINISHED}"):
            part.unlink()

    def keep(self, task_id: str, headers: dict[str, Any], body: bytes) -> KeptDelivery:
        """Write a task; it is there for good when this returns. Raises OSError, and leaves nothing behind."""
        path = self._directory / task_id
        part = path.with_suffix(UNFINISHED)
        try:
            with part.open("xb") as file:
                file.write(json.dumps(headers, default=_as_text).encode() + b"\n")
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            _sync_directory(self._directory)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return KeptDelivery(path, headers, body)

    def tasks(self) -> Iterator[KeptDelivery]:
        """What earlier processes have left, the oldest first. A file that can't be read stays, and the log tells."""
        for path in sorted(self._directory.iterdir(), key=lambda file: file.stat().st_mtime):
            try:
                head, _, body = path.read_bytes().partition(b"\n")
                headers = json.loads(head)
                if not isinstance(headers, dict):
                    raise ValueError("it does not begin with headers")
            except (OSError, ValueError) as error:
                log.error("The task in %s can't be read: %s", path, error)
                continue
            yield KeptDelivery(path, headers, body)


def _as_text(value: object) -> str:
    """A header that JSON doesn't have; none that we use is of that kind."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
