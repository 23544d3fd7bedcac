"""What `idmap` looks at: a mapping, the endpoint and the policy around it, and the accounts of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from endpoint.cli.common import Settings, existing_endpoint_dir
from endpoint.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from endpoint.manager.local_user import LocalUser
    from endpoint.manager.mapping import MappingFile
    from endpoint.manager.mapping_program import Programs
    from endpoint.manager.mapping_types import Hit

F = TypeVar("F", bound=Callable[..., Any])

NO_ENDPOINT = "00000000-0000-0000-0000-000000000000"  # what programs are told where there is none


@dataclass(frozen=True)
class Refused:
    """Why an account would get no user endpoint: `reason` for the user, `detail` for the admin."""

    code: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Account:
    """The local user that a mapping leads to, and what speaks against a user endpoint of theirs."""

    user: LocalUser | None
    refusal: Refused | None


@dataclass(frozen=True)
class Place:
    """The mapping that a command is about, and the endpoint that it belongs to, if one was named.

    policy: the file that was named.
    """

    path: Path
    folder: Path | None
    endpoint_id: str
    policy: Path | None

    def programs(self, file: MappingFile) -> Programs:
        """What runs the mapping's programs. Never as root, since another user may have written which they are."""
        from endpoint.manager.mapping_program import Programs
        from endpoint.manager.mapping_types import Program

        asks = any(isinstance(document, Program) for document in file.documents)
        return Programs(self.endpoint_id, run_as=self._service_user() if asks and os.geteuid() == 0 else None)

    def _service_user(self) -> LocalUser:
        """Whom the endpoint's manager runs as: the owner of its files, else the policy's service user."""
        from endpoint.errors import MappingError
        from endpoint.manager.local_user import user_named

        owners = [path.stat().st_uid for path in (self.folder, self.path) if path is not None]
        try:
            return user_named(_name_of(next(filter(None, owners), None)) or self._policy().service_user)
        except MappingError as error:
            raise UsageError(
                "The mapping asks programs, which are not run as root, and there is no service user to run them as",
                hint="Run this command as the user that the endpoint's manager runs as",
                detail=error.failure.reason,
            ) from error

    def _policy(self) -> Any:
        from endpoint.privileged.policy import load_policy

        return load_policy(self.folder.name if self.folder else "", self.policy)

    def service_uid(self) -> int:
        """The user id of whom the manager runs as; -1 where that can't be known."""
        from endpoint.privileged.accounts import find_account

        owner = self.folder.stat().st_uid if self.folder else 0
        account = find_account(self._policy().service_user)
        return owner or (account.uid if account else -1)

    def judge(self, name: str) -> Refused | None:
        """What the monitor would say of the account `name`."""
        from endpoint.privileged.accounts import find_account
        from endpoint.privileged.policy import Bounds, judge

        policy = self._policy()
        found = judge(policy, Bounds.of(policy), find_account(name), self.service_uid())
        return Refused(found.code, found.reason, found.detail) if found else None


def account_of(place: Place, hit: Hit, who: str) -> Account:
    """The account that `hit` names, for somebody called `who`, and whether it may have a user endpoint."""
    from endpoint.manager.identity import local_user_of
    from endpoint.manager.mapping_refusals import AccountRefused

    try:
        user = local_user_of(hit, who)
    except AccountRefused as error:
        failure = error.failure
        return Account(None, Refused(failure.code, failure.reason, failure.detail))
    refusal = place.judge(user.name)
    return Account(user, refusal and replace(refusal, detail=f"{hit} gives {user.name}. {refusal.detail}".rstrip()))


def where(command: F) -> F:
    """`--endpoint` or `--mapping`, and `--policy`, as the command's parameter `place`."""

    def with_place(
        settings: Settings, /, endpoint: str | None, mapping: Path | None, policy: Path | None, **more: Any
    ) -> Any:
        return command(settings, place=_place(settings, endpoint, mapping, policy), **more)

    with_place.__doc__ = command.__doc__
    wrapped: Any = with_place
    for names, kind, metavar, text in (
        (("--policy",), click.Path(path_type=Path), "FILE", "The policy, else the endpoint's."),
        (("-m", "--mapping"), click.Path(path_type=Path), "FILE", "A mapping file, else the endpoint's."),
        (("-e", "--endpoint"), None, "NAME_OR_UUID", "The endpoint whose mapping it is."),
    ):
        wrapped = click.option(*names, type=kind, metavar=metavar, help=text)(wrapped)
    result: F = wrapped
    return result


def _place(settings: Settings, endpoint: str | None, mapping: Path | None, policy: Path | None) -> Place:
    from endpoint.config.endpoint_json import stored_endpoint_id
    from endpoint.config.model import load_manager_config
    from endpoint.config.paths import CONFIG

    if mapping is not None and not mapping.exists():
        raise UsageError(f"There is no file {mapping}", code="NO_SUCH_FILE")
    if endpoint is None:
        if mapping is None:
            raise UsageError("Neither an endpoint nor a mapping is given", hint="Add --endpoint or --mapping")
        return Place(mapping, None, NO_ENDPOINT, policy)
    folder = existing_endpoint_dir(settings, endpoint)
    path = mapping or load_manager_config(folder / CONFIG).identity_mapping_config_path
    if path is None:
        raise ConfigError(f"The endpoint {folder.name} maps nobody: it has no identity_mapping_config_path")
    return Place(path, folder, stored_endpoint_id(folder) or NO_ENDPOINT, policy)


def _name_of(uid: int | None) -> str | None:
    import pwd

    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
