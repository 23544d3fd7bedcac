"""What `configure --multi-user true` does when it is done: the files go to the service user, and the way on is told."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from pathlib import Path

from endpoint.errors import UsageError

POLICIES = "/etc/globus-compute-endpoint"


def hand_over(folder: Path, service_user: str, *, with_parent: bool) -> str:
    """Give the endpoint's directory to the service user, if we are root; a sentence that says what was done.

    with_parent: also the directory that it is in, which is new and will have the login.
    """
    if os.geteuid() != 0:
        return f"The endpoint's directory is yours; root gives it to the service user: {_chown(folder, service_user)}"
    try:
        account = pwd.getpwnam(service_user)
    except KeyError:
        return (
            f"There is no account {service_user} yet. Make it, then give it the directory:\n"
            f"  useradd --system --shell /usr/sbin/nologin {service_user}\n  {_chown(folder, service_user)}"
        )
    _give(folder, account)
    if with_parent:
        os.chown(folder.parent, account.pw_uid, account.pw_gid, follow_symlinks=False)
    lines = [f"{folder} belongs to the service user {service_user} now."]
    if closed := _first_closed(folder, account):
        lines.append(
            f"{service_user} can't reach it, since {closed} is closed to others. Configure the endpoint elsewhere, "
            "for example with: globus-compute-endpoint --config-dir /var/lib/globus-compute configure ..."
        )
    for part in (Path(sys.executable), Path(os.__file__)):  # the environment, and the Python that it was made of
        if closed := _first_closed(part, account):
            lines.append(
                f"{service_user} can't run this program, since {closed} is closed to others. Install it where "
                "everybody can run it, with a Python that everybody can read: in /opt, say, with /usr/bin/python3"
            )
            break
    return "\n".join(lines)


def next_steps(folder: Path, service_user: str) -> list[str]:
    """What is still to be done, in order."""
    return [
        "What is next, in this order:",
        f"  1. Say who is who: identity mapping in {folder}; try it with: globus-compute-endpoint idmap explain",
        "  2. Write /etc/pam.d/globus-compute-endpoint, or turn PAM off in config.yaml and in the policy.",
        f"  3. Say who may have a user endpoint: {POLICIES}/{folder.name}.policy.json, root's own.",
        "     Without it the defaults hold: accounts of people, with a login shell.",
        f"  4. Log in as the service user, or give {service_user} a client identity in a file that only it can read.",
        f"  5. Start it as root: globus-compute-endpoint --config-dir {folder.parent} start {folder.name}",
    ]


def _give(folder: Path, account: pwd.struct_passwd) -> None:
    """By the open directory, the directory itself last: nobody else can put links into it meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise UsageError(f"{folder} is not what was made a moment ago", code="REPLACED")
        for name in os.listdir(descriptor):  # noqa: PTH208 - of the open directory, not of a path
            os.chown(name, account.pw_uid, account.pw_gid, dir_fd=descriptor, follow_symlinks=False)
        os.fchown(descriptor, account.pw_uid, account.pw_gid)
    finally:
        os.close(descriptor)


def _chown(folder: Path, service_user: str) -> str:
    return f"chown -R {service_user}: {folder}"


def _first_closed(folder: Path, account: pwd.struct_passwd) -> Path | None:
    """The first directory on the way there that the account can't go through."""
    for path in reversed(folder.parents):
        found = path.stat()
        if found.st_uid == account.pw_uid:
            needed = stat.S_IXUSR
        elif found.st_gid == account.pw_gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not found.st_mode & needed:
            return path
    return None
