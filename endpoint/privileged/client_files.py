"""The endpoint's client identity in two small files, `client_id` and `client_secret`, and how a manager gets it.

They lie where systemd puts the credentials of a unit (`$CREDENTIALS_DIRECTORY`, for root alone), or in the endpoint's
directory. What the monitor finds it hands to the manager in a sealed memory file: a secret is never in an argument or
a variable, which /proc shows, nor in the memory of the monitor, which every keeper inherits.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from endpoint.errors import ConfigError, Stage
from endpoint.privileged.documents import SEALS

DIRECTORY_VARIABLE = "CREDENTIALS_DIRECTORY"
FILE_VARIABLE = "GLOBUS_COMPUTE_CREDENTIAL_FILE"
ID_FILE = "client_id"
SECRET_FILE = "client_secret"  # noqa: S105 - the name of a file
VARIABLES = ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET", FILE_VARIABLE)
LARGEST = 4096  # bytes
READY_MADE = "/proc/self/fd/"  # where the manager finds the memory file


def read_client(directory: Path, owners: tuple[int, ...], *, of_unit: bool = False) -> tuple[str, str] | None:
    """Client id and secret; None where neither file is there, or both are empty.

    owners: whose the files may be. of_unit: they are a unit's credentials, where systemd lets another user than root
    read root's files by an access list, whose mask looks like the group's permissions. Raises ConfigError for a file of
    somebody else, that others can read, or that has no companion.
    """
    client_id, secret = (_read(directory / name, owners, of_unit) for name in (ID_FILE, SECRET_FILE))
    if not client_id and not secret:
        return None
    if not client_id or not secret:
        missing, there = (SECRET_FILE, ID_FILE) if client_id else (ID_FILE, SECRET_FILE)
        raise _bad(directory / missing, f"is missing or empty, although there is {there}", f"Write {missing} too")
    return client_id, secret


def handed_over(client: tuple[str, str]) -> int:
    """A sealed memory file with the identity, for this process's user alone, that the next program inherits."""
    descriptor = os.memfd_create("client", os.MFD_ALLOW_SEALING)  # no MFD_CLOEXEC
    os.fchmod(descriptor, 0o400)
    os.write(descriptor, json.dumps(dict(zip((ID_FILE, SECRET_FILE), client, strict=True))).encode())
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    return descriptor


def with_client(variables: Mapping[str, str], descriptor: int) -> dict[str, str]:
    """The variables of a manager that finds its identity in `descriptor`, and nowhere else."""
    kept = {name: value for name, value in variables.items() if name not in VARIABLES}
    return {**kept, FILE_VARIABLE: f"{READY_MADE}{descriptor}"}


def keep_from_children(variables: Mapping[str, str]) -> None:
    """For the manager: the programs that it starts don't inherit the memory file."""
    number = variables.get(FILE_VARIABLE, "").removeprefix(READY_MADE)
    if number.isdigit() and int(number) > 2:
        os.set_inheritable(int(number), False)


def _read(path: Path, owners: tuple[int, ...], of_unit: bool) -> str:
    """What stands in a file, without the space around it; empty where there is none. Raises ConfigError."""
    try:
        # O_NONBLOCK: whoever puts a pipe there keeps nobody waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _bad(path, f"can't be read: {error.strerror}", "It must be a file of its own, mode 0600") from error
    try:
        _check(path, os.fstat(descriptor), owners, of_unit)
        text = os.read(descriptor, LARGEST).decode("ascii", errors="replace").strip()
    finally:
        os.close(descriptor)
    if not all(letter.isprintable() and letter != "\ufffd" for letter in text):
        raise _bad(path, "has more than one line, or what is no text", "Write the value alone into it")
    return text


def _check(path: Path, facts: os.stat_result, owners: tuple[int, ...], of_unit: bool) -> None:
    mode = stat.S_IMODE(facts.st_mode)
    if not stat.S_ISREG(facts.st_mode):
        raise _bad(path, "is not a regular file", "It must be a file of its own, mode 0600")
    if facts.st_uid not in owners:
        raise _bad(path, f"belongs to the user with the id {facts.st_uid}", f"Its owner must have the id {owners[0]}")
    by_list = stat.S_IRGRP if of_unit and facts.st_uid == facts.st_gid == 0 else 0
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~by_list:
        raise _bad(
            path,
            f"is open to others (its mode is {mode:04o})",
            f"Run: chmod 600 {path}. If others could read it, replace the client's secret as well",
            code="CREDENTIAL_FILE_OPEN",
        )
    if facts.st_size > LARGEST:
        raise _bad(path, f"is larger than {LARGEST} bytes", "Write the value alone into it")


def _bad(path: Path, problem: str, hint: str, code: str = "BAD_CREDENTIAL_FILE") -> ConfigError:
    return ConfigError(f"The credential file {path} {problem}", hint=hint, stage=Stage.LOGIN, code=code)
