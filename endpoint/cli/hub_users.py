"""`compute-hub user`: the accounts of people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from endpoint.cli.common import Settings, echo_json, json_option, pass_settings, table
from endpoint.cli.hub_store import database_option, directory_option, end_broker_connections, with_store
from endpoint.errors import Stage, UsageError

if TYPE_CHECKING:
    from endpoint.hub.people import PersonEntry
    from endpoint.hub.store import Store

MAX_INPUT = 4096

_password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input (one line) instead of asking twice."
)


@click.group()
def user() -> None:
    """Accounts of people, who log in with a browser."""


@user.command("create")
@click.argument("name")
@click.option(
    "--domain",
    envvar="COMPUTE_HUB_DOMAIN",
    help="What follows the @ in the user name; the name of this machine otherwise. Also $COMPUTE_HUB_DOMAIN.",
)
@click.option("--full-name", default="", help="The person's name as others read it.")
@click.option("--email", help="The person's e-mail address.")
@_password_stdin
@directory_option
@database_option
@json_option
@pass_settings
def create(
    settings: Settings,
    name: str,
    domain: str | None,
    full_name: str,
    email: str | None,
    password_stdin: bool,
    directory: Path,
    database: Path | None,
) -> None:
    """Make an account called NAME. The service may run or not.

    Endpoints see the person as NAME@DOMAIN: an identity mapping goes by that.
    """
    import socket

    from endpoint.hub import people

    where = domain or socket.gethostname()
    people.check_account(name.lower(), where.lower(), full_name, email or "")  # before anybody types a password in vain
    password = _ask(name, from_stdin=password_stdin)

    async def make(store: Store) -> PersonEntry:
        return await people.create_person(store, name, password, domain=where, full_name=full_name, email=email)

    entry = with_store(directory, database, make, create=True)
    if settings.json:
        echo_json(vars(entry))
    else:
        click.echo(f"Created {entry.username} (identity {entry.id})")


@user.command("list")
@directory_option
@database_option
@json_option
@pass_settings
def list_users(settings: Settings, directory: Path, database: Path | None) -> None:
    """List the accounts."""
    from datetime import datetime

    from endpoint.hub import people

    entries = with_store(directory, database, people.list_people)
    if settings.json:
        echo_json([vars(entry) for entry in entries])
        return
    rows = [
        (e.name, e.username, e.id, datetime.fromtimestamp(e.created).isoformat(" ", "seconds"), e.full_name)
        for e in entries
    ]
    click.echo(table(("NAME", "USER NAME", "IDENTITY", "CREATED", "FULL NAME"), rows))


@user.command("delete")
@click.argument("name")
@directory_option
@database_option
@json_option
@pass_settings
def delete(settings: Settings, name: str, directory: Path, database: Path | None) -> None:
    """Delete an account: its password and logins are refused from now on; what it owns stays.

    Somebody who gets the same name later is another identity, and owns none of it.
    """
    from endpoint.hub import people

    async def remove(store: Store) -> str:
        return await people.delete_person(store, name)

    identity_id = with_store(directory, database, remove)
    end_broker_connections(directory, database, identity_id)
    if settings.json:
        echo_json({"deleted": identity_id})
    else:
        click.echo(f"Deleted {name} (identity {identity_id})")


@user.command("passwd")
@click.argument("name")
@_password_stdin
@directory_option
@database_option
@json_option
@pass_settings
def passwd(settings: Settings, name: str, password_stdin: bool, directory: Path, database: Path | None) -> None:
    """Change the password of NAME, and end the logins that were made with the old one."""
    from endpoint.hub import people

    async def find(store: Store) -> str:
        return await people.find_person(store, name)

    identity_id = with_store(directory, database, find)
    password = _ask(name, from_stdin=password_stdin)

    async def change(store: Store) -> str:
        return await people.set_password(store, name, password)

    with_store(directory, database, change)
    end_broker_connections(directory, database, identity_id)
    if settings.json:
        echo_json({"changed": identity_id})
    else:
        click.echo(f"Changed the password of {name}; its logins have ended")


def _ask(name: str, *, from_stdin: bool) -> str:
    """A new password: a line of standard input, or typed twice on the terminal without an echo."""
    from endpoint.hub.passwords import check_new_password

    if from_stdin:
        password = sys.stdin.readline(MAX_INPUT).rstrip("\r\n")
    elif not sys.stdin.isatty():
        raise UsageError(
            "A password is asked for on a terminal, and this is none", hint="Add --password-stdin", stage=Stage.HUB
        )
    else:
        password = click.prompt("Password", hide_input=True, err=True)
        check_new_password(password, name)
        if click.prompt("Again", hide_input=True, err=True) != password:
            raise UsageError("The two passwords differ", stage=Stage.HUB, code="BAD_PASSWORD")
    check_new_password(password, name)
    return password
