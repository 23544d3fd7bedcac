"""What a user endpoint says of itself in its heartbeats, beside its engine's figures."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def start_facts(ep_info: Mapping[str, Any], config_text: str) -> dict[str, Any]:
    """The start-up facts (protocol.md, section 1), after those that the manager gave in `ep_info`."""
    now = datetime.now().astimezone()
    return {
        **ep_info,
        "posix_username": _user_name(os.getuid()),
        "posix_uid": os.getuid(),
        "posix_gid": os.getgid(),
        "posix_groups": os.getgroups(),
        "posix_pid": os.getpid(),
        "posix_sid": os.getsid(0),
        "config_raw": config_text,
        "start_iso": now.isoformat(),
        "start_unix": now.timestamp(),
    }


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # an account that this host doesn't list, as in a container
        return str(uid)
