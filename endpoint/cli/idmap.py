"""`idmap`: which local user an identity is and why, before anybody finds out by using the endpoint."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from endpoint.cli.common import Settings, common_options, echo_json, json_option, pass_settings
from endpoint.cli.idmap_place import Place, where
from endpoint.errors import ExitStatus

if TYPE_CHECKING:
    from endpoint.cli.idmap_table import Identities, Row
    from endpoint.manager.mapping import IdentityMapping, MappingFile
    from endpoint.manager.mapping_types import Hit

T = TypeVar("T")

STANDARD_INPUT = "-"
AT_ONCE = 100  # lines of a table


@click.group("idmap")
def idmap() -> None:
    """See which local users identities are, and test an identity mapping."""


@idmap.command("explain")
@click.argument("identity")
@json_option
@common_options
@pass_settings
@where
def explain(settings: Settings, /, place: Place, identity: str) -> int:
    """Show which rule decides for IDENTITY, which local user that is, and what the policy says of that user.

    IDENTITY is a user name such as alice@example.org, an identity's id, a JSON file with an identity or with a list of
    somebody's identities, or - for such a list on standard input. Status 1 if there would be no user endpoint.
    """
    import asyncio

    from endpoint.cli.idmap_report import as_text, explanation
    from endpoint.cli.idmap_table import given_identities

    identities = given_identities(identity, sys.stdin.read() if identity == STANDARD_INPUT else None)
    file = _file(place)
    explanations = asyncio.run(_with_mapping(place, file, lambda mapping: mapping.explain(identities)))
    document = explanation(place, identities, explanations)
    if settings.json:
        echo_json(document)
    else:
        _warn(file)
        click.echo(as_text(document))
    return ExitStatus.OK if document["admitted"] else ExitStatus.FAILED


@idmap.command("test")
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--accounts", is_flag=True, help="Count who has no account here, or is refused by the policy, as refused."
)
@json_option
@common_options
@pass_settings
@where
def test(settings: Settings, /, place: Place, table: Path, accounts: bool) -> int:
    """Compare a mapping with TABLE, which says which identity should be which local user. Status 1 if it differs.

    TABLE is a CSV file with the columns identity and user, or a YAML file: a mapping of user names to users, or a list
    of entries with identity (a user name, an id, an identity's fields, or a list of somebody's identities) and user.
    The user is - or null for somebody who should be refused.
    """
    import asyncio

    from endpoint.cli.idmap_table import rows

    file = _file(place)
    found = rows(table)
    wrong = asyncio.run(
        _with_mapping(place, file, lambda mapping: _mismatches(place, mapping, found, accounts=accounts))
    )
    if settings.json:
        echo_json({"file": str(table), "identities": len(found), "mismatches": wrong})
    else:
        _warn(file)
        for each in wrong:
            click.echo(f"{table}:{each['line']}: {each['identity']}: {each['message']}", err=True)
        click.echo(f"{len(found)} identities, {len(wrong)} mismatch{'es' * (len(wrong) != 1)}")
    return ExitStatus.FAILED if wrong else ExitStatus.OK


@idmap.command("collisions")
@click.option("--identities", metavar="FILE", type=click.Path(path_type=Path), help="A JSON list of identities to map.")
@json_option
@common_options
@pass_settings
@where
def collisions(settings: Settings, /, place: Place, identities: Path | None) -> int:
    """Show the rules under which two identities reach one account. Status 1 if there are any.

    Identities are made up from the rules, and mapped with all of them. The list for --identities has an identity, or a
    list of identities, for each person; these are mapped too.
    """
    import asyncio

    from endpoint.cli.idmap_table import people, read
    from endpoint.manager.mapping_collisions import collisions_among, possible_collisions

    file = _file(place)
    report = possible_collisions(file.documents)
    given = people(read(identities), str(identities)) if identities else []
    real = collisions_among(asyncio.run(_with_mapping(place, file, lambda mapping: _mapped(mapping, given))))
    if settings.json:
        echo_json(
            {
                "possible": [asdict(each) for each in report.collisions],
                "among_identities": [asdict(each) for each in real],
                "notes": report.notes,
            }
        )
    else:
        _warn(file)
        for each in (*report.collisions, *real):
            click.echo(str(each))
        for note in report.notes:
            click.echo(f"note: {note}", err=True)
        click.echo(f"{len(report.collisions) + len(real)} collision{'s' * (len(report.collisions) + len(real) != 1)}")
    return ExitStatus.FAILED if report.collisions or real else ExitStatus.OK


def _file(place: Place) -> MappingFile:
    from endpoint.manager.mapping import read_mapping

    # Root asks for the manager, who owns the endpoint's directory and what is in it.
    return read_mapping(place.path, place.folder.stat().st_uid if place.folder and os.geteuid() == 0 else None)


def _warn(file: MappingFile) -> None:
    for warning in file.warnings:
        click.echo(warning, err=True)


async def _with_mapping(
    place: Place, file: MappingFile, work: Callable[[IdentityMapping], Coroutine[Any, Any, T]]
) -> T:
    from endpoint.manager.mapping import IdentityMapping

    mapping = IdentityMapping(file, place.programs(file))
    try:
        return await work(mapping)
    finally:
        await mapping.close()


async def _mapped(mapping: IdentityMapping, given: Sequence[Identities]) -> list[tuple[str, str, Hit]]:
    """How each person is called, who they are, and where they lead."""
    import asyncio

    from endpoint.cli.idmap_table import named

    found = []
    for start in range(0, len(given), AT_ONCE):
        some = given[start : start + AT_ONCE]
        hits = await asyncio.gather(*(mapping.find(identities) for identities in some))
        people = zip(some, hits, strict=True)
        found += [(named(identities), str(identities[0]["id"]), hit) for identities, hit in people if hit]
    return found


async def _mismatches(
    place: Place, mapping: IdentityMapping, rows: Sequence[Row], *, accounts: bool
) -> list[dict[str, Any]]:
    """The lines that turn out otherwise, as plain values."""
    import asyncio

    wrong: list[dict[str, Any]] = []
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        compared = await asyncio.gather(*(_mismatch(place, mapping, row, accounts=accounts) for row in some))
        wrong += [each for each in compared if each is not None]
    return wrong


async def _mismatch(place: Place, mapping: IdentityMapping, row: Row, *, accounts: bool) -> dict[str, Any] | None:
    from endpoint.cli.idmap_place import account_of
    from endpoint.manager.mapping_refusals import LookupFailed

    got, why, certain = None, "no document knows them", True
    try:
        hit = await mapping.find(row.identities)
    except LookupFailed as error:
        hit, why, certain = None, error.failure.detail, False
    if hit is not None:
        got, why = hit.output, str(hit)
        refusal = account_of(place, hit, row.who).refusal if accounts else None
        if refusal:
            got, why = None, refusal.detail or refusal.reason
    if certain and got == row.user:
        return None
    message = f"expected {row.user or 'a refusal'}, got {got or 'a refusal'} ({why})"
    return {"line": row.line, "identity": row.who, "expected": row.user, "got": got, "message": message}
