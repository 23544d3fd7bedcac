"""Accounts of this machine, as the system's user database has them now.

The database may be a directory service behind the network, so only keepers (and the program that starts) look here: the
monitor never waits for one, and none opens a connection in it.
"""

from __future__ import annotations

import grp
import os
import pwd
from contextlib import suppress
from dataclasses import dataclass

LONGEST_NAME = 256  # characters


@dataclass(frozen=True)
class Account:
    """A local user. `groups` has the primary one too; `group_names` those of them that have a name."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str
    groups: tuple[int, ...] = ()
    group_names: tuple[str, ...] = ()


def is_account_name(name: str) -> bool:
    """Whether `name` can be an account's at all: nothing that means something in files, messages or options."""
    return (
        0 < len(name) <= LONGEST_NAME
        and name.isprintable()
        and not any(bad in name for bad in " /:,")
        and name[0] not in "-."
    )


def find_account(name: str) -> Account | None:
    """The account called `name` with its groups; None where the database has none."""
    if not is_account_name(name):
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = tuple(sorted({*os.getgrouplist(entry.pw_name, entry.pw_gid), entry.pw_gid}))
    names = []
    for gid in groups:
        with suppress(KeyError):
            names.append(grp.getgrgid(gid).gr_name)
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        home=entry.pw_dir,
        shell=entry.pw_shell or "/bin/sh",  # as passwd(5) says
        groups=groups,
        group_names=tuple(names),
    )
