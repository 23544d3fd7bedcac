"""The user endpoints of a manager, in a file of its directory for `status` and for people."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from endpoint.config.paths import STATUS

SOON_S = 0.1  # many changes come together


class Condition:
    """Written whole, soon after each change; a disk that is full leaves the last one."""

    def __init__(self, endpoint_dir: Path, facts: Callable[[], list[dict[str, Any]]]) -> None:
        self._path = endpoint_dir / STATUS
        self._facts = facts
        self._soon: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Something is different now."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(SOON_S, self._write)

    def ended(self) -> None:
        """There is no manager any more."""
        if self._soon is not None:
            self._soon.cancel()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self) -> None:
        self._soon = None
        part = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(json.dumps({"user_endpoints": self._facts()}) + "\n")
            part.replace(self._path)
