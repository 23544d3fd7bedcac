"""The function that `health` has run: its source, as a worker reads it, and what it answers.

It goes as source and its answer comes as JSON: nobody's pickle is opened here, and any worker's Python will do.
docs/protocol.md, section 2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

NAME = "who_runs_this"
SERIALIZERS = ("globus_compute_sdk.serialize.JSONData",)
LONGEST = 200  # characters of a text that a worker tells
SOURCE = """\
def who_runs_this():
    import os
    import platform
    import pwd
    import socket

    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = None
    return {"user": user, "uid": uid, "host": socket.gethostname(), "python": platform.python_version()}
"""


@dataclass(frozen=True)
class Answer:
    """Who ran it, as that process sees itself. user: None where the uid has no name there."""

    user: str | None
    uid: int
    host: str
    python: str


def code() -> str:
    """The function, packed."""
    return _packed(f"st\n{NAME}:{SOURCE}")


def arguments() -> str:
    """No arguments, packed."""
    return _packed("11\n[]") + _packed("11\n{}")


def answer_of(text: Any) -> Answer:
    """The value that a task's result is. Raises ValueError for anything else."""
    if not isinstance(text, str) or not text.startswith("11\n"):
        raise ValueError("it is not written as JSON")
    value = json.loads(text[3:])
    if not isinstance(value, dict) or not isinstance(uid := value.get("uid"), int):
        raise ValueError("it is not what the function returns")
    user = value.get("user")
    return Answer(
        None if user is None else str(user)[:LONGEST],
        uid,
        str(value.get("host"))[:LONGEST],
        str(value.get("python"))[:LONGEST],
    )


def _packed(buffer: str) -> str:
    return f"{len(buffer)}\n{buffer}"
