"""A systemd scope for a keeper and its user endpoint, in the user's slice, or in one of the endpoint's for the user.

So accounting, `systemctl status` and the site's limits for the user's slice apply to what the user runs, and a restart
of the endpoint's own unit does not touch it. Only where systemd manages the machine, and best effort: a user endpoint
without a scope of its own still runs.

The scope is ordered before the endpoint's unit: when the machine shuts down, the unit stops its user endpoints first,
one signal each, and systemd, which would signal every process of a scope at once, finds nothing left.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

from endpoint.privileged import lines

PROGRAM = "/usr/bin/busctl"
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
LIMIT_S = 5.0  # for systemd's answer, and again for what it does then
MOVED_POLL_S = 0.005
LONGEST_ENDPOINT = 64  # characters of the endpoint's name; systemd has room for 255 in all
LARGEST_ANSWER = 4096  # bytes of what busctl says about a failure
WHERE = "scope"


def enter_scope(endpoint: str, name: str, uid: int, *, own_slice: bool = False) -> None:
    """Move this process into a scope of its own, unless a session of the user has it already (pam_systemd).

    own_slice: into the endpoint's slice for this user, wherever the process is.
    """
    before, monitors = cgroup_of("self"), cgroup_of(os.getppid())
    if not own_slice and f"/user-{uid}.slice/" in before and before != monitors:
        return
    scope = unit(endpoint, name, os.getpid())
    slice_name = slice_of(endpoint, uid) if own_slice else f"user-{uid}.slice"
    service = service_of(before) or service_of(monitors)
    properties = [["PIDs", "au", "1", str(os.getpid())], *described(name, slice_name, service)]
    if (problem := _ask(call(scope, properties))) is None:
        problem = _wait_until_moved(scope)
    if problem is not None:
        lines.warning(
            WHERE,
            f"The user endpoint gets no scope, and ends when the endpoint's unit does: {problem}",
            user_endpoint=name,
        )


def unit(endpoint: str, name: str, pid: int) -> str:
    """The name of the scope. With the keeper's process id in it, it is not that of one that is just going away."""
    return f"gce-{_allowed(endpoint[:LONGEST_ENDPOINT])}-{_allowed(name)}-{pid}.scope"


def slice_of(endpoint: str, uid: int | None = None) -> str:
    """The endpoint's slice; with a user, the one below it for that user's user endpoints.

    A dash makes a slice one below another, so the endpoint's name is in it without: `gce-my_lab-1000.slice` is in
    `gce-my_lab.slice`, and `/etc/systemd/system/gce-my_lab-.slice.d/` has what holds for all users.
    """
    name = f"gce-{_allowed(endpoint[:LONGEST_ENDPOINT])}"
    return f"{name}.slice" if uid is None else f"{name}-{uid}.slice"


def service_of(cgroup: str) -> str | None:
    """The service in whose cgroup a process is, from its file in /proc."""
    for line in cgroup.splitlines():
        hierarchy, _, path = line.partition(":")[2].partition(":")
        last = path.rpartition("/")[2]
        if hierarchy in ("", "name=systemd") and last.endswith(".service"):
            return last
    return None


def described(name: str, slice_name: str, service: str | None) -> list[list[str]]:
    """The properties of a scope beside its process, each as busctl wants it."""
    properties = [
        ["Slice", "s", slice_name],
        ["Description", "s", f"Globus Compute user endpoint {name}"],
        ["CollectMode", "s", "inactive-or-failed"],
    ]
    return [*properties, ["Before", "as", "1", service]] if service else properties


def call(scope: str, properties: list[list[str]]) -> list[str]:
    """The command that asks systemd for a scope: org.freedesktop.systemd1, StartTransientUnit."""
    manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    arguments = [scope, "fail", str(len(properties)), *(word for one in properties for word in one)]
    return [PROGRAM, "call", "--quiet", *manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", *arguments, "0"]


def cgroup_of(process: int | str) -> str:
    """Where a process stands in the cgroups, as /proc has it; empty where it is gone."""
    try:
        return Path(f"/proc/{process}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _allowed(name: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._") else "_" for letter in name)


def _ask(command: list[str]) -> str | None:
    """Run the command; returns what was wrong. Without `subprocess`, which each keeper would load for itself."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    places = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, writing, 2)]
    try:
        pid = os.posix_spawn(command[0], command, ENVIRONMENT, file_actions=places, setsigdef=[signal.SIGTERM])
    except OSError as error:
        os.close(reading)
        return f"{command[0]}: {error.strerror}"
    finally:
        os.close(writing)
        os.close(null)
    try:
        return _answer(pid, reading)
    finally:
        os.close(reading)


def _answer(pid: int, reading: int) -> str | None:
    said, deadline = b"", time.monotonic() + LIMIT_S
    while len(said) < LARGEST_ANSWER:
        ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
        more = os.read(reading, LARGEST_ANSWER) if ready else b""
        if not more:  # it has ended, or takes too long
            break
        said += more
    late = time.monotonic() >= deadline
    if late:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if late:
        return f"systemd does not answer within {LIMIT_S:g} s"
    return (said.decode(errors="replace").strip() or f"busctl ended with status {status}") if status else None


def _wait_until_moved(scope: str) -> str | None:
    """systemd moves this process a moment after it has answered; what is forked before that stays where it is."""
    deadline = time.monotonic() + LIMIT_S
    while scope not in cgroup_of("self"):
        if time.monotonic() > deadline:
            return f"systemd made {scope}, and does not move the process there"
        time.sleep(MOVED_POLL_S)
    return None
