"""The directory of the keys with which an engine and its workers encrypt what they say to each other.

Parsl makes it, with new keys at every start; whoever can read it can be a worker, and whoever owns it can change it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from endpoint.errors import EngineFailure

DIRECTORY = "certificates"  # Parsl's name, in the executor's directory


def check_keys(log_dir: Path) -> None:
    """Raises EngineFailure where a directory for the keys is there already that is not its owner's alone."""
    place = log_dir / DIRECTORY
    try:
        found = place.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise EngineFailure(f"The engine can't use the directory of its keys {place}: {error.strerror}") from error
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        wrong = "is no directory"
    elif found.st_uid != os.geteuid():
        wrong = f"belongs to user {found.st_uid}"
    elif mode != 0o700:
        wrong = f"has mode {mode:04o}, where only its owner may use it (0700)"
    else:
        return
    raise EngineFailure(
        f"The engine doesn't put its keys into {place}, which {wrong}",
        hint=f"Remove {place}; the engine makes it anew",
    )
