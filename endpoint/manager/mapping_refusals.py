"""Why somebody gets no local account: each is one sentence for the user, and a detail for the administrator."""

from __future__ import annotations

from endpoint.errors import Mender, Stage
from endpoint.manager.commands import Refusal


class NotMapped(Refusal):
    """No rule and no program knows any of the identities."""

    mender = Mender.ADMIN
    stage = Stage.MAP_IDENTITY
    code = "IDENTITY_NOT_MAPPED"


class AccountRefused(Refusal):
    """The local account that an identity leads to is not there, or not for this."""

    mender = Mender.ADMIN
    stage = Stage.MAP_IDENTITY
    code = "ACCOUNT_REFUSED"


class LookupFailed(Refusal):
    """Nobody can say which account it is, now: a program failed, or a rule took too long."""

    mender = Mender.ADMIN
    retry = True
    stage = Stage.MAP_IDENTITY
    code = "LOOKUP_FAILED"
