"""Who may have a user endpoint here, and as which local user. Decisions only: nothing is started, nobody is asked.

An endpoint without privileges runs everything as its owner, so it follows only commands that come from one of the
owner's own Globus identities. Mapping other identities to local users needs privileges, and gets a policy of its own
beside this one.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from endpoint.errors import MappingError
from endpoint.manager.commands import Refusal, Requester


@dataclass(frozen=True)
class LocalUser:
    """A user of this machine, and the Globus identity that led there (none: the owner, nothing was mapped)."""

    name: str
    uid: int
    gid: int
    home: Path
    shell: str = ""
    gecos: str = ""
    groups: tuple[int, ...] = ()
    matched_identity: str | None = None

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


class Policy(Protocol):
    """Decides for whom, and as whom, a user endpoint is started."""

    def admit(self, requester: Requester) -> LocalUser:
        """The local user for `requester`; raises Refusal."""


class OwnerOnly:
    """Only the owner's identities; everything runs as the user that the manager runs as."""

    def __init__(self, owner: frozenset[str], user: LocalUser) -> None:
        self._owner = owner
        self._user = user

    def admit(self, requester: Requester) -> LocalUser:
        """The owner, or Refusal."""
        if self._owner & requester.subjects:
            return self._user
        raise Refusal(
            f"This endpoint runs functions of its owner only, and {requester.username} is somebody else",
            hint="Use an endpoint of your own, or one that an administrator offers to several users",
            code="IDENTITY_NOT_ALLOWED",
        )


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
    return LocalUser(
        name=entry.pw_name,
        uid=uid,
        gid=entry.pw_gid,
        home=Path(environment.get("HOME") or entry.pw_dir),
        shell=entry.pw_shell,
        gecos=entry.pw_gecos,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
    )
