"""Users of this machine, as the system's user database has them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint.errors import MappingError
from endpoint.privileged.accounts import LONGEST_NAME, is_account_name


@dataclass(frozen=True)
class LocalUser:
    """A user of this machine, and the Globus identity that led there (none: the owner, nothing was mapped).

    mapped_by: the rule or program that decided, for the log and the audit.
    """

    name: str
    uid: int
    gid: int
    home: Path
    shell: str = ""
    gecos: str = ""
    groups: tuple[int, ...] = ()
    matched_identity: str | None = None
    mapped_by: str = ""

    def for_template(self) -> dict[str, Any]:
        """What a configuration template sees as `mapped_identity`."""
        return {
            "local": {
                "uname": self.name,
                "uid": self.uid,
                "gid": self.gid,
                "gecos": self.gecos,
                "shell": self.shell,
                "dir": str(self.home),
                "groups": list(self.groups),
            },
            "globus": {"id": self.matched_identity},
        }


def user_named(name: str) -> LocalUser:
    """The user called `name`, with all of their groups; raises MappingError for one that the machine doesn't know.

    May take as long as the machine's user database does: ask in a thread.
    """
    try:
        entry = pwd.getpwnam(name) if is_account_name(name) else None
    except (KeyError, ValueError):  # a ValueError for what can't be put into the system's encoding
        entry = None
    if entry is None:
        raise MappingError(f"The machine has no user {name[:LONGEST_NAME]!r}", code="NO_SUCH_USER")
    return _local_user(entry, Path(entry.pw_dir))


def this_user(environment: Mapping[str, str] = os.environ) -> LocalUser:
    """The user that this process runs as; raises MappingError for one that the machine doesn't know."""
    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        raise MappingError(
            f"The user id {uid} of this process has no entry in the user database",
            hint="Run the endpoint as a user that `getent passwd` knows",
            code="NO_SUCH_USER",
        ) from error
    return _local_user(entry, Path(environment.get("HOME") or entry.pw_dir))


def _local_user(entry: pwd.struct_passwd, home: Path) -> LocalUser:
    return LocalUser(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        home=home,
        shell=entry.pw_shell,
        gecos=entry.pw_gecos,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
    )
