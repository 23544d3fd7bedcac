"""The memory file through which a manager hands a running user endpoint newer broker credentials.

Its content is Fernet-encrypted JSON, `{"amqp_creds": REGISTRATION}`. The user endpoint gets the file as an inherited
descriptor that can only be read, and the key in its start document.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from cryptography.fernet import Fernet

from endpoint.manager.memory import fill


def new_key() -> str:
    """A key of its own for each user endpoint."""
    return Fernet.generate_key().decode()


def encrypted(key: str, amqp_creds: Mapping[str, Any]) -> bytes:
    """What is in the file."""
    document = json.dumps({"amqp_creds": amqp_creds}, separators=(",", ":"))
    return Fernet(key).encrypt(document.encode())


class CredentialFile:
    """One user endpoint's memory file; close it when the process is gone."""

    def __init__(self) -> None:
        self.key = new_key()
        self._fd = os.memfd_create("credentials", os.MFD_CLOEXEC)
        self._reader: int | None = None

    def write(self, amqp_creds: Mapping[str, Any]) -> None:
        """Replace the content. A reader that comes in between can't decrypt it and reads again."""
        fill(self._fd, encrypted(self.key, amqp_creds))

    def reader(self) -> int:
        """A descriptor for the child: read-only, with an offset of its own."""
        if self._reader is None:
            self._reader = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        return self._reader

    def close_reader(self) -> None:
        """The child has its descriptor; ours goes."""
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None

    def close(self) -> None:
        """Give up both ends that are ours."""
        self.close_reader()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
