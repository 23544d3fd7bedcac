"""A new authentication policy at the authorization service, and the project that it belongs to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import globus_sdk
from globus_sdk.gare import to_gares
from globus_sdk.scopes import AuthScopes

from endpoint.errors import Stage, UnexpectedAnswer, UsageError
from endpoint.manager.login import auth_errors, globus_app


@dataclass(frozen=True)
class NewPolicy:
    """A policy that doesn't exist yet. timeout: seconds; None, here and for domains: no such rule."""

    project_id: str | None
    display_name: str
    description: str
    include_domains: list[str] | None = None
    exclude_domains: list[str] | None = None
    high_assurance: bool = False
    timeout: int | None = None
    requires_mfa: bool = False

    def fields(self, project_id: str) -> dict[str, Any]:
        """Arguments of the call that creates it; rules that are not there are left out."""
        optional = {
            "domain_constraints_include": self.include_domains,
            "domain_constraints_exclude": self.exclude_domains,
            "high_assurance": self.high_assurance or None,
            "authentication_assurance_timeout": self.timeout,
            "required_mfa": self.requires_mfa or None,
        }
        return {
            "project_id": project_id,
            "display_name": self.display_name,
            "description": self.description,
            **{name: value for name, value in optional.items() if value is not None},
        }


def create_policy(compute_dir: Path, policy: NewPolicy) -> str:
    """Create `policy`, asking for a project where it names none; returns its id.

    Raises UsageError where there is nobody to ask, LoginError, NetworkFailure or UnexpectedAnswer.
    """
    with auth_errors(Stage.CONFIGURE):
        app = globus_app(None, compute_dir)
        client = globus_sdk.AuthClient(app=app, app_scopes=[AuthScopes.openid, AuthScopes.manage_projects])
        project_id = policy.project_id or _choose_project(app, client)
        answer = _with_consent(app, lambda: client.create_policy(**policy.fields(project_id)))
    return _id_in(answer, "policy")


def _choose_project(app: globus_sdk.GlobusApp, client: globus_sdk.AuthClient) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            "A new policy belongs to a project, and there is nobody to ask which",
            hint="Add --auth-policy-project-id",
        )
    projects = list(_with_consent(app, client.get_projects))
    for number, project in enumerate(projects, 1):
        click.echo(f"  {number}  {project['display_name']} ({project['id']})", err=True)
    choice = click.prompt(
        "Number of the project for the new policy; 0 makes a new one",
        type=click.IntRange(0, len(projects)),
        default=0,
        err=True,
    )
    return str(projects[choice - 1]["id"]) if choice else _new_project(app, client)


def _new_project(app: globus_sdk.GlobusApp, client: globus_sdk.AuthClient) -> str:
    name = click.prompt("Name of the new project", err=True)
    email = click.prompt("Contact address of the new project", err=True)
    admins = click.prompt(
        "Ids of its administrators, with commas (none: you)", default="", show_default=False, err=True
    )
    groups = click.prompt("Ids of groups of administrators, with commas", default="", show_default=False, err=True)
    admin_ids = [item.strip() for item in admins.split(",") if item.strip()]
    group_ids = [item.strip() for item in groups.split(",") if item.strip()]
    if not admin_ids and not group_ids:
        admin_ids = [str(_with_consent(app, client.userinfo)["sub"])]
    answer = _with_consent(
        app,
        lambda: client.create_project(
            display_name=name,
            contact_email=email,
            admin_ids=admin_ids or globus_sdk.MISSING,
            admin_group_ids=group_ids or globus_sdk.MISSING,
        ),
    )
    return _id_in(answer, "project")


def _with_consent(app: globus_sdk.GlobusApp, call: Callable[[], Any]) -> Any:
    """Do the call; where the service wants a newer or stronger login for it, log in so, and do it once more."""
    try:
        return call()
    except globus_sdk.GlobusAPIError as error:
        wanted = to_gares([error])
        if not wanted:
            raise
        for one in wanted:
            app.login(auth_params=one.authorization_parameters)
        return call()


def _id_in(answer: Any, kind: str) -> str:
    try:
        return str(answer[kind]["id"])
    except (KeyError, TypeError) as error:
        raise UnexpectedAnswer(
            f"The authorization service's answer names no {kind}", stage=Stage.CONFIGURE, detail=str(answer)[:500]
        ) from error
