"""`check-config`: every problem of every file that an administrator writes, before anything starts."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from endpoint.cli.common import Settings, common_options, echo_json, existing_endpoint_dir, json_option, pass_settings
from endpoint.errors import ConfigError, ExitStatus, UsageError

if TYPE_CHECKING:
    from endpoint.config.examine import Examiner, Report
    from endpoint.config.trial import Facts

STANDARD_INPUT = "-"
AN_SDK = ("4.19.0", "4.0.0")  # versions for templates that ask for them; which ones makes no difference
KIND_NAMES = (
    *("endpoint", "user", "template", "user-options-schema", "user-environment", "identity-mapping"),
    *("user-options-default", "hub", "site", "policy"),
)


@click.command("check-config")
@click.argument("given", metavar="FILE|NAME|-...", nargs=-1, required=True)
@click.option("--kind", type=click.Choice(KIND_NAMES), help="What the files are; else their names or contents say.")
@click.option("--alone", is_flag=True, help="Don't look at the files that a file names or that belong to it.")
@json_option
@common_options
@pass_settings
def check_config(settings: Settings, /, given: tuple[str, ...], kind: str | None, alone: bool) -> int:
    """Check configuration files: their syntax, every option, and what a template makes of example options.

    FILE is a file, or the directory of an endpoint; NAME is an endpoint's name; - is standard input. Files that a file
    names are checked too. Status 78 if anything is not valid; warnings are shown, and don't count.
    """
    gc.disable()  # what follows takes a fraction of a second, and looking for garbage a tenth of it
    try:
        reports = _reports(settings, given, kind, follow=not alone)
    finally:
        gc.enable()
    valid = all(report.valid for report in reports)
    if settings.json:
        echo_json({"valid": valid, "files": [report.to_dict() for report in reports]})
    else:
        for report in reports:
            show(report, color=settings.color)
    return ExitStatus.OK if valid else ExitStatus.BAD_CONFIG


def _reports(settings: Settings, given: tuple[str, ...], kind: str | None, *, follow: bool) -> list[Report]:
    from endpoint.cli.site_rules import Rules
    from endpoint.config.examine import Examiner

    examiner = Examiner(facts, follow=follow, judge=Rules())
    for one in given:
        _examine(settings, examiner, one, kind)
    return list(examiner.reports.values())


def _examine(settings: Settings, examiner: Examiner, given: str, kind: str | None) -> None:
    path = Path(given)
    if given == STANDARD_INPUT:
        from endpoint.config.examine import kind_of

        text = _standard_input()
        examiner.text(text, Path("<stdin>"), kind or kind_of(Path("<stdin>"), text))
    elif path.is_dir():
        examiner.folder(path)
    elif path.exists():
        examiner.file(path, kind)
    elif path.suffix or "/" in given:
        raise UsageError(f"There is no file {given}", code="NO_SUCH_FILE")
    else:
        examiner.folder(existing_endpoint_dir(settings, given))


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"Standard input is not UTF-8 text (byte {error.start}).") from error


def facts() -> Facts:
    """What a template can be tried with here: this Python, and the user who asks."""
    import os

    from endpoint.cli.render import runtime
    from endpoint.config.trial import Facts
    from endpoint.manager.local_user import this_user

    return Facts(runtime(*AN_SDK), this_user(os.environ).for_template())


def show(report: Report, *, color: bool, valid: bool = True) -> None:
    """Print a report for a person; `valid`: also that a file has no problems."""
    from endpoint.config.examine import KINDS
    from endpoint.config.report import underlined

    terminal = sys.stderr.isatty()
    for problem in report.problems:
        own_text = terminal and problem.source == report.file
        click.echo(underlined(problem, report.text, color=color) if own_text else str(problem), err=True)
    for note in report.notes:
        click.echo(f"{report.file}: {note}", err=True)
    if report.valid and valid:
        click.echo(f"{report.file}: valid ({KINDS[report.kind]})")
