"""Who may have a user endpoint here, and as which local user. Decisions only: nothing is started, nobody is asked.

An endpoint without privileges runs everything as its owner, so it follows only commands that come from one of the
owner's own Globus identities. Mapping other identities to local users needs privileges, and gets a policy of its own
beside this one.
"""

from __future__ import annotations

from typing import Protocol

from endpoint.manager.commands import Refusal, Requester
from endpoint.manager.local_user import LocalUser


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
