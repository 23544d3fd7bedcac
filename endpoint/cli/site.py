"""`site`: a site document for Ansible, checked before any host is touched, and secrets for its vault."""

from __future__ import annotations

import gc
import secrets
import string
from pathlib import Path
from typing import TYPE_CHECKING

import click

from endpoint.cli.common import Settings, common_options, echo_json, json_option, pass_settings
from endpoint.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from endpoint.config.site_document import Site

SECRET_BYTES = 32


@click.group("site")
def site() -> None:
    """Work with the document of a site."""


@site.command("inventory")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@common_options
@pass_settings
def inventory(settings: Settings, /, file: Path) -> int:
    """Print Ansible's inventory of the site that FILE describes, as JSON: every value that a role needs.

    Secrets stay references. A document with mistakes gives status 78, and all of them on standard error.
    """
    from endpoint.config.site import inventory as resolved

    found = _valid(settings, file, applied=True)
    if found is None:
        return ExitStatus.BAD_CONFIG
    echo_json(resolved(found))
    return ExitStatus.OK


@site.command("new-secrets")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@common_options
@pass_settings
def new_secrets(settings: Settings, /, file: Path) -> int:
    """Print a fresh random value for each variable of the vault that FILE names, as YAML on standard output.

    Pass it on to a vault: `... site new-secrets site.yml | ansible-vault encrypt --output group_vars/all/vault.yml`.
    Nothing is kept. A secret that somebody else gave you, such as one of the public service, goes in by hand.
    """
    from endpoint.config.site_document import vault_names
    from endpoint.config.write import dump_yaml

    found = _valid(settings, file, applied=False)
    if found is None:
        return ExitStatus.BAD_CONFIG
    names, keys = vault_names(found)
    # A letter first, so that YAML takes it as it is, without quotes.
    values = {name: secrets.choice(string.ascii_letters) + secrets.token_urlsafe(SECRET_BYTES) for name in names}
    if settings.json:
        echo_json(values)
    elif values:
        click.echo(dump_yaml(values), nl=False)
    else:
        click.echo(f"{file} names no variable of a vault", err=True)
    for name in keys:
        click.echo(f"{name} is the key of a certificate: add it to the vault yourself", err=True)
    return ExitStatus.OK


def _valid(settings: Settings, file: Path, *, applied: bool) -> Site | None:
    """The site of `file`; None where that is not valid, and then all that is wrong was printed."""
    from endpoint.cli.check import facts, show
    from endpoint.cli.site_rules import Rules
    from endpoint.config.examine import Examiner
    from endpoint.config.parse import parse_yaml
    from endpoint.config.site_document import Site

    if not file.is_file():
        raise UsageError(f"There is no file {file}", code="NO_SUCH_FILE")
    gc.disable()  # as in check-config
    try:
        examiner = Examiner(facts, judge=Rules(), applied=applied)
        examiner.file(file, "site")
    finally:
        gc.enable()
    for report in examiner.reports.values():
        show(report, color=settings.color, valid=False)
    if not all(report.valid for report in examiner.reports.values()):
        return None
    return Site.of(parse_yaml(examiner.reports[str(file)].text, str(file)), file.parent)
