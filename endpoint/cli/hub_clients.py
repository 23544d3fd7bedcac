"""`compute-hub client`: the identities of programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from endpoint.cli.common import Settings, echo_json, json_option, pass_settings, table
from endpoint.cli.hub_store import database_option, directory_option, end_broker_connections, with_store
from endpoint.errors import Stage, UsageError

if TYPE_CHECKING:
    from endpoint.hub.clients import ClientEntry, Kept
    from endpoint.hub.store import Store

MAX_INPUT = 4096


@click.group()
def client() -> None:
    """Client identities: the credentials of endpoints, and of programs that submit functions."""


@client.command("create")
@click.argument("name")
@click.option(
    "--id",
    "client_id",
    metavar="UUID",
    help="The client's id, made up otherwise. Where there is such a client already, it is compared, or changed.",
)
@click.option(
    "--username",
    metavar="NAME@DOMAIN",
    help="What an identity mapping goes by, in the place of ID@clients.auth.globus.org.",
)
@click.option(
    "--secret-stdin", is_flag=True, help="Read the secret from standard input (one line) instead of making one up."
)
@click.option(
    "--update",
    is_flag=True,
    help="Change a client of this id that differs; another secret ends the tokens that the old one has got.",
)
@directory_option
@database_option
@json_option
@pass_settings
def create(settings: Settings, /, name: str, directory: Path, database: Path | None, **options: Any) -> None:
    """Make a client identity called NAME, and print the two variables that hold its credentials.

    A secret that is made up is shown this once. The service may run or not. With an --id, the command can be
    repeated: a client that is as wanted is left as it is.
    """
    from endpoint.hub import clients

    if options["update"] and options["client_id"] is None:
        raise UsageError("--update needs an --id", hint="See: compute-hub client list", stage=Stage.HUB)
    secret = _secret() if options["secret_stdin"] else None
    wanted = clients.Wanted(name, options["client_id"], options["username"], secret)

    async def keep(store: Store) -> Kept:
        return await clients.keep_client(store, wanted, change=options["update"])

    kept = with_store(directory, database, keep, create=True)
    if "secret" in kept.updated:
        end_broker_connections(directory, database, kept.id)
    if settings.json:
        echo_json(_document(kept))
    else:
        click.echo(_words(kept))


def _secret() -> str:
    return sys.stdin.readline(MAX_INPUT).rstrip("\r\n")


def _document(kept: Kept) -> dict[str, Any]:
    made_up = {} if kept.secret is None else {"client_secret": kept.secret}
    return {
        "client_id": kept.id,
        "name": kept.name,
        "username": kept.username,
        "changed": kept.changed,
        "created": kept.created,
        "updated": list(kept.updated),
        **made_up,
    }


def _words(kept: Kept) -> str:
    if kept.secret is not None:
        variables = {"GLOBUS_COMPUTE_CLIENT_ID": kept.id, "GLOBUS_COMPUTE_CLIENT_SECRET": kept.secret}
        return "\n".join(f"export {name}={value}" for name, value in variables.items())
    if kept.created:
        return f"Created {kept.username} (client {kept.id})"
    if kept.updated:
        ended = "; its tokens have ended" if "secret" in kept.updated else ""
        return f"Changed the {' and the '.join(kept.updated)} of client {kept.id}{ended}"
    return f"Unchanged: {kept.username} (client {kept.id})"


@client.command("list")
@directory_option
@database_option
@json_option
@pass_settings
def list_clients(settings: Settings, directory: Path, database: Path | None) -> None:
    """List the client identities."""
    from datetime import datetime

    from endpoint.hub import clients

    entries = with_store(directory, database, clients.list_clients)
    if settings.json:
        echo_json([vars(entry) for entry in entries])
        return
    rows = [(e.name, e.id, e.username, datetime.fromtimestamp(e.created).isoformat(" ", "seconds")) for e in entries]
    click.echo(table(("NAME", "CLIENT ID", "USER NAME", "CREATED"), rows))


@client.command("delete")
@click.argument("name_or_id")
@directory_option
@database_option
@json_option
@pass_settings
def delete(settings: Settings, name_or_id: str, directory: Path, database: Path | None) -> None:
    """Delete a client identity: its credentials and tokens are refused from now on; what it owns stays."""
    from endpoint.hub import clients

    async def remove(store: Store) -> str:
        chosen = _choose(await clients.list_clients(store), name_or_id)
        await clients.delete_client(store, chosen.id)
        return chosen.id

    client_id = with_store(directory, database, remove)
    end_broker_connections(directory, database, client_id)
    if settings.json:
        echo_json({"deleted": client_id})
    else:
        click.echo(f"Deleted {client_id}")


def _choose(entries: list[ClientEntry], name_or_id: str) -> ClientEntry:
    found = [entry for entry in entries if name_or_id in (entry.id, entry.name)]
    if not found:
        raise UsageError(f"There is no client {name_or_id!r}", hint="See: compute-hub client list", stage=Stage.HUB)
    if len(found) > 1:
        ids = ", ".join(entry.id for entry in found)
        raise UsageError(f"{len(found)} clients are called {name_or_id!r}", hint=f"Name one by its id: {ids}")
    return found[0]
