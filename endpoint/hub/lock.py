"""Who runs on a hub's database: a lock beside it, which the kernel lets go when its holder ends in whatever way."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from endpoint.errors import AlreadyRunning, ConfigError, Stage


@contextmanager
def only_one(database: Path) -> Iterator[None]:
    """Hold the lock of `database`. Raises AlreadyRunning where somebody has it, ConfigError where it can't be made."""
    file = database.with_suffix(".lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        raise ConfigError(f"{file} can't be written: {e.strerror}", stage=Stage.HUB) from e
    with os.fdopen(descriptor, "r+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise AlreadyRunning(
                f"Another hub uses {database.parent}: {_who(stream.read())}",
                hint="Stop that one first, or use another directory",
                stage=Stage.HUB,
            ) from e
        stream.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname()}, stream)
        stream.flush()
        yield


def _who(text: str) -> str:
    try:
        document = json.loads(text)
        return f"process {document['pid']} on {document['host']}"
    except (ValueError, KeyError, TypeError):
        return "its process is not known"
