"""Become a user for good, and prove it.

The one place where a process of ours gives up its rights. It must run in a process of its own: one that was forked for
this, has one thread, and execs or ends soon. Order matters: what needs the rights comes before the user id, and every
call that takes rights away is followed by an attempt to get them back, which must fail. In doubt it raises, and the
caller must end the process: there is no way back and no way on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from endpoint.privileged import linux
from endpoint.privileged.steps import Step, StepFailed

NO_CHANGE = -1  # for the kernel: leave this id as it is
NO_ID = 2**32 - 1  # the same, as the number that it is for the kernel


@dataclass(frozen=True)
class Identity:
    """Who to become: never root, always with all three of them."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < self.uid < NO_ID or not 0 <= self.gid < NO_ID:
            raise StepFailed(Step.UID, f"no process may run as uid {self.uid}, gid {self.gid}")


def become(identity: Identity, on_step: Callable[[Step], None]) -> None:
    """Change groups, group and user of this process, and verify it; raises StepFailed or OSError.

    on_step: told each step before it is taken.
    """
    before = os.geteuid(), os.getegid()
    on_step(Step.GROUPS)
    os.setgroups(identity.groups)
    on_step(Step.GID)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    on_step(Step.UID)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    # The kernel takes all capabilities from root that becomes a user, unless it was told not to; not from others.
    linux.clear_capabilities()
    on_step(Step.VERIFY)
    verify(identity, before)


def verify(identity: Identity, before: tuple[int, int]) -> None:
    """Raise StepFailed unless this process is `identity`, has no capability, and can't go back to `before`."""
    uid, gid = before
    if uid != identity.uid and _succeeds(lambda: os.setresuid(NO_CHANGE, uid, NO_CHANGE)):
        raise StepFailed(Step.VERIFY, f"could become uid {uid} again")
    if _succeeds(lambda: os.setuid(0)) or _succeeds(lambda: os.setreuid(0, 0)):
        raise StepFailed(Step.VERIFY, "could become root")
    if gid != identity.gid and _succeeds(lambda: os.setresgid(NO_CHANGE, gid, NO_CHANGE)):
        raise StepFailed(Step.VERIFY, f"could become gid {gid} again")
    if _succeeds(lambda: os.setgroups([0, *identity.groups])):
        raise StepFailed(Step.VERIFY, "could change its groups again")
    if os.getresuid() != (identity.uid,) * 3:
        raise StepFailed(Step.VERIFY, f"has the user ids {os.getresuid()}, not {identity.uid}")
    if os.getresgid() != (identity.gid,) * 3:
        raise StepFailed(Step.VERIFY, f"has the group ids {os.getresgid()}, not {identity.gid}")
    if set(os.getgroups()) - {identity.gid} != set(identity.groups) - {identity.gid}:
        raise StepFailed(Step.VERIFY, f"has the groups {os.getgroups()}, not {list(identity.groups)}")
    held = linux.own_capabilities()
    if held.permitted or held.effective or held.inheritable or held.ambient:
        raise StepFailed(Step.VERIFY, f"has capabilities: {held}")


def _succeeds(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except OSError:  # not permitted, or the ids are not known in our namespace
        return False
    return True
