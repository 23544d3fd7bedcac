"""Who may have a user endpoint: the site's policy, read and judged where the manager can't reach it.

The file is JSON, since nothing else can be read with the standard library alone. `schemas/policy.schema.json` describes
it for people and editors; the few lines here check it again by hand, and a test compares the two.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from endpoint.errors import ConfigError, Stage
from endpoint.privileged.accounts import Account

DIRECTORY = Path("/etc/globus-compute-endpoint")
LOGIN_DEFS = Path("/etc/login.defs")
SHELLS = Path("/etc/shells")
LARGEST_FILE = 256 * 1024  # bytes
MOST_USER_ENDPOINTS = 4000  # a new manager hears of all of them at once: see `channel.MOST_WAITING`
FALLBACK_MINIMUM_UID = 1000
NO_ID = 2**32 - 1  # what the kernel takes for "leave it as it is"
NOBODY = 65534  # whose files belong to somebody that this machine doesn't know

_UID_MIN = re.compile(r"^\s*UID_MIN\s+(\d{1,9})\s*$", re.MULTILINE)
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class PamSettings:
    """Whether account and session go through PAM, and as which service."""

    enable: bool = True
    service_name: str = "globus-compute-endpoint"


@dataclass(frozen=True)
class Policy:
    """The options of the file; see the schema for what they mean."""

    service_user: str = "globus-compute"
    minimum_uid: int | None = None
    forbidden_users: tuple[str, ...] = ()
    forbidden_groups: tuple[str, ...] = ()
    required_groups: tuple[str, ...] = ()
    shells: tuple[str, ...] | None = None
    max_user_endpoints: int = 1000
    max_user_endpoints_per_user: int = 50
    starts_per_minute_per_user: int = 60
    pam: PamSettings = field(default_factory=PamSettings)
    no_new_privileges: bool = False
    drop_bounding_set: bool = False
    own_slices: bool = False
    runtime_directory: str = "/run/globus-compute-endpoint"
    audit_log: str | None = None
    audit_required: bool = False
    audit_format: str = "json"
    end_s: int = 10


@dataclass(frozen=True)
class Refusal:
    """Why there is no user endpoint: `reason` for the user, `detail` for the admin."""

    code: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Bounds:
    """What the policy takes from other files of the system, as they were when the monitor started."""

    minimum_uid: int
    shells: frozenset[str] | None  # None: every one

    @classmethod
    def of(cls, policy: Policy) -> Bounds:
        """What the policy says itself, else what the system's files do."""
        minimum = policy.minimum_uid if policy.minimum_uid is not None else _system_minimum()
        shells = _system_shells() if policy.shells is None else frozenset(policy.shells) or None
        return cls(minimum, shells)


def load_policy(name: str, named: Path | None = None, directory: Path = DIRECTORY) -> Policy:
    """The policy of the endpoint called `name`: from the file `named`, else from its own, else from everybody's.

    Without any file, the defaults. Raises ConfigError for a file that is wrong, or that others than us can change.
    """
    if named is not None:
        found = _read(named)
        if found is None:
            raise _wrong(named, "the file is not there")
        return parse_policy(found, str(named))
    for path in (directory / f"{name}.policy.json", directory / "policy.json"):
        if (found := _read(path)) is not None:
            return parse_policy(found, str(path))
    return Policy()


def parse_policy(content: bytes, source: str = "the policy") -> Policy:
    """The policy in the bytes of a file; raises ConfigError, which names `source`."""
    try:
        data = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _wrong(source, f"it is not JSON: {error}") from error
    values = _values(data, _CHECKS, source)
    if "pam" in values:
        values["pam"] = PamSettings(**_values(values["pam"], _PAM_CHECKS, source, "pam."))
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return Policy(**values | lists)


def judge(policy: Policy, bounds: Bounds, account: Account | None, service_uid: int) -> Refusal | None:
    """Why `account` may not have a user endpoint, or None if it may. Pure: everything it needs is given."""
    if account is None:
        return Refusal("NO_SUCH_USER", "Your identity leads to a local account that this machine does not have")
    who = f"{account.name}, uid {account.uid}"
    if not 0 < account.uid < NO_ID or not 0 <= account.gid < NO_ID or account.uid == NOBODY:
        return _not_for(f"Nobody may have a user endpoint of {who}, gid {account.gid}", "FORBIDDEN_USER")
    if account.uid == service_uid:
        return _not_for(f"{who} is whom the manager runs as", "FORBIDDEN_USER")
    if account.uid < bounds.minimum_uid:
        return _not_for(f"{who} is below the minimum uid, which is {bounds.minimum_uid}", "UID_TOO_SMALL")
    if account.name in policy.forbidden_users:
        return _not_for(f"{who} is in forbidden_users", "FORBIDDEN_USER")
    if bad := sorted({*policy.forbidden_groups} & {*account.group_names}):
        return _not_for(f"{who} is in forbidden_groups: {', '.join(bad)}", "FORBIDDEN_GROUP")
    if policy.required_groups and not {*policy.required_groups} & {*account.group_names}:
        detail = f"{who} is in none of required_groups: {', '.join(policy.required_groups)}"
        return Refusal("NOT_IN_GROUP", "Your local account is in no group that may use this endpoint", detail)
    if bounds.shells is not None and account.shell not in bounds.shells:
        detail = f"{who} has the login shell {account.shell}, which is not among those that are allowed"
        return Refusal("SHELL_NOT_ALLOWED", "Your local account has no login shell that this endpoint allows", detail)
    return None


class StartRate:
    """How often each user's user endpoints may be started: so many in any minute. Pure; the caller has the clock."""

    PERIOD_S = 60.0
    MOST_USERS = 10_000

    def __init__(self, most: int) -> None:
        self._most = most
        self._starts: dict[int, list[float]] = {}

    def allows(self, uid: int, now: float) -> bool:
        """Whether one more may start at `now`; it is counted if so."""
        recent = [moment for moment in self._starts.get(uid, ()) if now - moment < self.PERIOD_S]
        if len(recent) >= self._most:
            self._starts[uid] = recent
            return False
        if uid not in self._starts and len(self._starts) >= self.MOST_USERS:
            self._forget(now)
        self._starts[uid] = [*recent, now]
        return True

    def _forget(self, now: float) -> None:
        """Drop the users who have not started anything for a while."""
        self._starts = {uid: times for uid, times in self._starts.items() if now - times[-1] < self.PERIOD_S}


def _not_for(detail: str, code: str) -> Refusal:
    return Refusal(code, "Your local account may not use this endpoint", detail)


def _read(path: Path) -> bytes | None:
    """The content of a policy's file; None where there is none. Raises ConfigError for one that others can change.

    The file and its directory are looked at by the descriptors through which they are read, so that nobody can put
    others in their place in between.
    """
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _wrong(path, f"it can't be read: {error.strerror}") from error
    else:
        with os.fdopen(descriptor, "rb") as stream:
            _must_be_ours(path, os.fstat(stream.fileno()), os.fstat(directory))
            content = stream.read(LARGEST_FILE + 1)
    finally:
        os.close(directory)
    if len(content) > LARGEST_FILE:
        raise _wrong(path, f"it is larger than {LARGEST_FILE} bytes")
    return content


def _must_be_ours(path: Path, file: os.stat_result, directory: os.stat_result) -> None:
    us = {0, os.geteuid()}
    if not stat.S_ISREG(file.st_mode):
        raise _wrong(path, "it is no regular file")
    if file.st_uid not in us or file.st_mode & _WRITABLE_BY_OTHERS:
        raise _wrong(path, "others than root can write it", hint=f"chown root {path}; chmod go-w {path}")
    if directory.st_uid not in us or (directory.st_mode & _WRITABLE_BY_OTHERS and not directory.st_mode & stat.S_ISVTX):
        where = path.parent
        raise _wrong(path, "others than root can write its directory", hint=f"chown root {where}; chmod go-w {where}")


def _system_minimum() -> int:
    try:
        found = _UID_MIN.search(LOGIN_DEFS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return FALLBACK_MINIMUM_UID
    return int(found.group(1)) if found else FALLBACK_MINIMUM_UID


def _system_shells() -> frozenset[str]:
    """The shells in /etc/shells; without that file, those that getusershell(3) takes."""
    try:
        lines = SHELLS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset({"/bin/sh", "/bin/csh"})
    return frozenset(line.strip() for line in lines if line.strip().startswith("/"))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[^/:,\x00-\x1f]+", value))


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and "\0" not in value


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_count_of_all(value: Any) -> bool:
    return _is_count(value) and bool(value <= MOST_USER_ENDPOINTS)


# What each option must be, as a predicate and in words.
_CHECKS = {
    "service_user": (_is_name, "the name of a user"),
    "minimum_uid": (_is_count, "a whole number, at least 1"),
    "forbidden_users": (_is_names, "a list of names"),
    "forbidden_groups": (_is_names, "a list of names"),
    "required_groups": (_is_names, "a list of names"),
    "shells": (lambda value: isinstance(value, list) and all(map(_is_path, value)), "a list of absolute paths"),
    "max_user_endpoints": (_is_count_of_all, "a whole number from 1 to 4000"),
    "max_user_endpoints_per_user": (_is_count, "a whole number, at least 1"),
    "starts_per_minute_per_user": (_is_count, "a whole number, at least 1"),
    "pam": (lambda value: isinstance(value, dict), "a mapping"),
    "no_new_privileges": (_is_bool, "true or false"),
    "drop_bounding_set": (_is_bool, "true or false"),
    "own_slices": (_is_bool, "true or false"),
    "runtime_directory": (_is_path, "an absolute path"),
    "audit_log": (_is_path, "an absolute path"),
    "audit_required": (_is_bool, "true or false"),
    "audit_format": (lambda value: value in ("json", "official"), "json or official"),
    "end_s": (lambda value: type(value) is int and 0 <= value <= 3600, "a whole number from 0 to 3600"),
}
_PAM_CHECKS = {
    "enable": (_is_bool, "true or false"),
    "service_name": (
        lambda value: isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value)),
        "the name of a file in /etc/pam.d",
    ),
}
_NULLABLE = frozenset({"minimum_uid", "shells", "audit_log"})  # where null is the same as leaving it out
assert _CHECKS.keys() == {option.name for option in fields(Policy)}  # a new option needs both


def _values(data: Any, checks: Mapping[str, Any], source: str, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _wrong(source, f"{prefix.rstrip('.') or 'it'} is not a mapping of options")
    for key, value in data.items():
        if key not in checks:
            raise _wrong(source, f"it has no option {prefix}{key}", hint=f"The options are: {', '.join(checks)}")
        is_right, words = checks[key]
        if not is_right(value) and not (value is None and prefix + key in _NULLABLE):
            raise _wrong(source, f"{prefix}{key} must be {words}")
    return {key: value for key, value in data.items() if value is not None}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _wrong(source: Path | str, what: str, hint: str = "") -> ConfigError:
    return ConfigError(
        f"The policy {source} can't be used: {what}",
        hint=hint or "See `check-config` and docs/privileges.md",
        stage=Stage.CONFIGURE,
        code="BAD_POLICY",
    )
