"""A systemd scope for a keeper and its user endpoint, in the user's slice.

So accounting, `systemctl status` and the site's limits for the user's slice apply to what the user runs, and a restart
of the endpoint's own unit does not touch it. Only where systemd manages the machine, and best effort: a user endpoint
without a scope of its own still runs.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from endpoint.privileged import lines

PROGRAM = "/usr/bin/busctl"
LIMIT_S = 5
MOVED_POLL_S = 0.005
DESCRIPTION = "Globus Compute user endpoint"


def enter_scope(name: str, uid: int) -> None:
    """Move this process into a scope of its own, unless a session of the user has it already (pam_systemd)."""
    if f"/user-{uid}.slice/" in _own_cgroup():
        return
    if not os.access(PROGRAM, os.X_OK):
        lines.warning("scope", "There is no busctl: the user endpoint gets no scope", user_endpoint=name)
        return
    import subprocess

    try:
        done = subprocess.run(
            call(name, uid, os.getpid()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            check=False,
            env={"PATH": "/usr/bin:/bin"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        lines.warning("scope", f"The user endpoint gets no scope: {error}", user_endpoint=name)
        return
    if done.returncode:
        told = done.stderr[-500:].decode(errors="replace").strip()
        lines.warning("scope", f"The user endpoint gets no scope: {told}", user_endpoint=name)
        return
    # systemd moves this process a moment after it has answered; what is forked before that stays where it is.
    deadline = time.monotonic() + LIMIT_S
    while unit(name, os.getpid()) not in _own_cgroup() and time.monotonic() < deadline:
        time.sleep(MOVED_POLL_S)


def unit(name: str, pid: int) -> str:
    """The name of the scope: what systemd allows in a unit's name, and only once."""
    allowed = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
    return f"globus-compute-{allowed}-{pid}.scope"


def call(name: str, uid: int, pid: int) -> list[str]:
    """The command that asks systemd for the scope: org.freedesktop.systemd1, StartTransientUnit."""
    properties: list[list[str]] = [
        ["PIDs", "au", "1", str(pid)],
        ["Slice", "s", f"user-{uid}.slice"],
        ["Description", "s", f"{DESCRIPTION} {name}"],
        ["CollectMode", "s", "inactive-or-failed"],
    ]
    manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    arguments = [unit(name, pid), "fail", str(len(properties))]
    arguments += [word for one in properties for word in one]
    return [PROGRAM, "call", "--quiet", *manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", *arguments, "0"]


def _own_cgroup() -> str:
    try:
        return Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
