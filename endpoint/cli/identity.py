"""`login`, `logout`, `whoami`: who this program is to the web service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from endpoint.cli.common import (
    Settings,
    common_options,
    echo_json,
    endpoint_dirs,
    json_option,
    pass_settings,
    table,
)
from endpoint.errors import AlreadyRunning, LoginError, Stage

if TYPE_CHECKING:
    import globus_sdk

IDENTITY_FIELDS = ("username", "name", "id", "email")


@click.command("login")
@click.option("--force", is_flag=True, help="Log in again even if the present login is good.")
@common_options
@pass_settings
def login(settings: Settings, force: bool) -> None:
    """Log in to the web service, with a browser, or with the client identity that the environment gives."""
    from endpoint.manager.login import auth_errors, globus_app

    with auth_errors():
        app = globus_app(None, settings.compute_dir)
        if not force and not app.login_required():
            click.echo("Logged in already. Use --force to log in again.", err=True)
            return
        app.login(force=force)
    click.echo("Logged in.", err=True)


@click.command("logout")
@click.option("--force", is_flag=True, help="Log out even while endpoints run, which then can't register again.")
@common_options
@pass_settings
def logout(settings: Settings, force: bool) -> None:
    """Revoke this login's tokens, and forget them."""
    from endpoint.config.paths import PID
    from endpoint.lease import read_lease
    from endpoint.manager.login import auth_errors, globus_app

    running = [
        path.name
        for path in endpoint_dirs(settings.compute_dir)
        if read_lease(path / PID).state in ("running", "elsewhere")
    ]
    if running and not force:
        raise AlreadyRunning(
            f"These endpoints run with this login: {', '.join(running)}",
            hint="Stop them first, or add --force",
            stage=Stage.LOGIN,
        )
    with auth_errors():
        globus_app(None, settings.compute_dir).logout()
    click.echo("Logged out. The tokens are revoked.", err=True)


@click.command("whoami")
@click.option("--linked-identities", is_flag=True, help="Show the identities linked with this one too.")
@json_option
@common_options
@pass_settings
def whoami(settings: Settings, linked_identities: bool) -> None:
    """Show who is logged in."""
    from endpoint.manager.login import auth_errors, globus_app

    with auth_errors():
        app = globus_app(None, settings.compute_dir)
        identities = _identities(app, linked=linked_identities)
    if settings.json:
        echo_json(identities)
        return
    rows = [[str(identity.get(field) or "") for field in IDENTITY_FIELDS] for identity in identities]
    click.echo(table(["Username", "Name", "ID", "Email"], rows))


def _identities(app: globus_sdk.GlobusApp, *, linked: bool) -> list[dict[str, Any]]:
    """The identity that is logged in, first, and those linked with it; `IDENTITY_FIELDS` of each."""
    import globus_sdk
    from globus_sdk.scopes import AuthScopes

    from endpoint.manager.login import AuthClient, login_required

    if isinstance(app, globus_sdk.UserApp) and app.login_required():
        raise login_required()
    client = AuthClient(app=app)
    if linked:
        client.add_app_scope(AuthScopes.view_identity_set)
    info = client.userinfo()
    ids = [info["sub"]]
    if linked:
        if "identity_set" not in info:
            raise LoginError(
                "This login may not see its linked identities",
                hint="Log in again and agree to that: globus-compute-endpoint login --force",
            )
        ids += [each["sub"] for each in info["identity_set"] if each["sub"] != info["sub"]]
    found = {each["id"]: each for each in client.get_identities(ids=ids)["identities"]}
    return [{field: found.get(one, {"id": one}).get(field) for field in IDENTITY_FIELDS} for one in ids]
