"""How a user endpoint does, in a file of its directory for `status` and for people."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endpoint.config.paths import STATUS
from endpoint.errors import EndpointError


class Condition:
    """Written whole at each change; a disk that is full leaves the last one."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATUS
        self._facts: dict[str, Any] = {"broker": _since("connecting"), "engine": _since("starting")}

    def broker(self, up: bool, reason: EndpointError | None) -> None:
        """The connection came up, or was lost because of `reason`."""
        self._facts["broker"] = _since("connected" if up else "reconnecting", reason)
        self._write()

    def engine(self, state: str, reason: EndpointError | None = None) -> None:
        """The engine is `running`, `blocked` (it can run nothing for a time), `restarting`, or `stopped`."""
        self._facts["engine"] = _since(state, reason)
        self._write()

    def tasks(self, counts: Mapping[str, int], *, disk_full: bool) -> None:
        """How many tasks are in which state; whether they wait for space on the disk."""
        if (counts, disk_full) != (self._facts.get("tasks"), self._facts.get("disk_full")):
            self._facts.update(tasks=dict(counts), disk_full=disk_full)
            self._write()

    def ended(self) -> None:
        """The endpoint has ended as it should."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(self._facts) + "\n")
            part.replace(self._path)


def _since(state: str, reason: EndpointError | None = None) -> dict[str, Any]:
    """A state with the time since when it is, in seconds since 1970."""
    entry = {"state": state, "since": round(time.time(), 3)}
    return entry if reason is None else {**entry, "reason": reason.failure.reason}
