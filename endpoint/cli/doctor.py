"""`doctor`: each stage between a configuration and a task's worker tried dry, and what was seen of it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from endpoint.cli.common import (
    Settings,
    common_options,
    echo_json,
    existing_endpoint_dir,
    json_option,
    pass_settings,
    plain,
)
from endpoint.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from endpoint.doctor.findings import Finding, Verdict
    from endpoint.doctor.run import Outcome
    from endpoint.doctor.situation import Situation, Wishes

DEFAULT_TIMEOUT_S = 60
LIBRARIES = ("parsl", "pika", "urllib3", "globus_sdk")  # whose log lines would come in between
COLORS = {"ok": "green", "warning": "yellow", "failed": "red", "not tried": "cyan"}
WIDTH = 9
LONGEST_DETAIL = 30  # lines


@click.command("doctor")
@click.argument("name_or_uuid", default="default")
@click.option(
    "--user-options",
    metavar="FILE|JSON",
    help="Options as a user sends them, for the template; else the examples of the schema of user options.",
)
@click.option("--no-job", is_flag=True, help="Submit no job; what only a job can tell is left out.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=1, max=600),
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    help="The time for each stage; a job that waits in a queue has to begin and end within it.",
)
@click.option(
    "--policy", type=click.Path(path_type=Path), help="With several users: another policy than the monitor's."
)
@json_option
@common_options
@pass_settings
def doctor(settings: Settings, /, name_or_uuid: str, policy: Path | None, **options: Any) -> int:
    """Try each stage of an endpoint's work without doing it, and say what was seen.

    Configuration, credentials, web service, broker, template, engine, scheduler, the way from a worker to here (by a
    job of a second), the workers' Python, disk and limits. Nothing is registered, and an endpoint that runs is not
    disturbed.

    The status is 0 where nothing failed (warnings are shown, and don't count), else that of the first failure: 78
    configuration, template, scheduler or workers' Python; 77 identity mapping; 75 service, broker or interface can't be
    reached; 70 an answer that should not be; 69 the service refuses the endpoint; 1 anything else; 130 with Ctrl-C.
    """
    folder = existing_endpoint_dir(settings, name_or_uuid)
    situation = _situation(settings, folder, _wishes(options, policy))
    quiet_libraries()
    begin = time.monotonic()
    with _signals(), situation.leftovers:
        outcomes, interrupted = _outcomes(settings, situation)
    from endpoint.doctor.run import exit_status

    status = ExitStatus.INTERRUPTED if interrupted else exit_status(outcomes)
    seconds = round(time.monotonic() - begin, 3)
    if settings.json:
        echo_json(_document(situation, outcomes, status, seconds))
    else:
        click.echo(_summary(outcomes, interrupted=interrupted, seconds=seconds))
    return status


def quiet_libraries() -> None:
    """What libraries log is not for the terminal."""
    for library in LIBRARIES:
        logging.getLogger(library).addHandler(logging.NullHandler())


def _wishes(options: Mapping[str, Any], policy: Path | None) -> Wishes:
    from endpoint.doctor.situation import Wishes

    given = options["user_options"]
    return Wishes(
        user_options=None if given is None else user_options(given),
        job=not options["no_job"],
        policy=policy.absolute() if policy else None,
        timeout_s=float(options["timeout"]),
    )


def user_options(given: str, option: str = "--user-options") -> dict[str, Any]:
    """The JSON object that stands on the command line, or in the file that it names."""
    text, source = given, option
    if not given.lstrip().startswith("{"):
        source = given
        try:
            text = Path(given).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The file {given} can't be read: {error}", code="NO_SUCH_FILE") from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{source} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"{source} is not a JSON object")
    return document


def _situation(settings: Settings, folder: Path, wishes: Wishes) -> Situation:
    from endpoint.cli.check import facts
    from endpoint.doctor.situation import Situation

    return Situation(folder, folder.parent, dict(os.environ), facts, wishes)


@contextmanager
def _signals() -> Iterator[None]:
    """The end that others ask for is as orderly as Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcomes(settings: Settings, situation: Situation) -> tuple[list[Outcome], bool]:
    """What the stages have found, shown as it comes; whether somebody interrupted them."""
    from endpoint.doctor.run import Interrupted, run_stages
    from endpoint.doctor.stages import STAGES

    progress = _Progress(settings)
    outcomes: list[Outcome] = []
    titles = iter([*(stage.title for stage in STAGES), ""])

    def add(outcome: Outcome) -> None:
        outcomes.append(outcome)
        progress.clear()
        if not settings.json:
            click.echo(_as_text(outcome, color=settings.color and sys.stdout.isatty()))

    try:
        progress.stage(next(titles))
        situation.progress = progress.more
        for outcome in run_stages(STAGES, situation):
            add(outcome)
            progress.stage(next(titles))
    except Interrupted as end:
        add(end.outcome)
        return outcomes, True
    finally:
        progress.clear()
    return outcomes, False


class _Progress:
    """One line on a terminal's stderr that says what is being looked at; nothing where there is no terminal."""

    def __init__(self, settings: Settings) -> None:
        self._shown = sys.stderr.isatty() and not settings.log_to_console and not settings.debug
        self._title = ""

    def stage(self, title: str) -> None:
        self._title = title
        if title:
            self.more("")

    def more(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{self._title} ... {plain(text)}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._shown:
            with suppress(OSError):
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()


def _as_text(outcome: Outcome, *, color: bool) -> str:
    lines = [outcome.stage.title]
    for finding in outcome.findings:
        lines += finding_lines(finding, color=color)
    return "\n".join(lines)


def finding_lines(finding: Finding, *, color: bool) -> list[str]:
    """What was seen, for a terminal."""
    words = plain(finding.words)
    lines = [f"  {_mark(finding.verdict, color=color)}  {words}"]
    gap = " " * (WIDTH + 4)
    if finding.next_step:
        lines.append(f"{gap}What to do next: {plain(finding.next_step)}")
    if finding.detail and finding.verdict.value in ("failed", "warning"):
        told = [line for line in finding.detail.splitlines() if line.strip()][-LONGEST_DETAIL:]
        lines += [f"{gap}| {plain(line.expandtabs())}" for line in told]
    return lines


def _mark(verdict: Verdict, *, color: bool) -> str:
    word = verdict.value.ljust(WIDTH)
    return click.style(word, fg=COLORS[verdict.value]) if color else word


def _summary(outcomes: list[Outcome], *, interrupted: bool, seconds: float) -> str:
    words = [finding.verdict.value for outcome in outcomes for finding in outcome.findings]
    counts = [(words.count(word), word) for word in ("failed", "warning", "not tried")]
    told = ", ".join(f"{number} {word}{'s' * (word == 'warning' and number > 1)}" for number, word in counts if number)
    what = "Interrupted" if interrupted else "All is well" if not told else "Done"
    return f"\n{what}{': ' * bool(told)}{told} ({seconds:.1f} s)"


def _document(situation: Situation, outcomes: list[Outcome], status: ExitStatus, seconds: float) -> dict[str, Any]:
    from importlib.metadata import version

    from endpoint.doctor.findings import worst

    return {
        "endpoint": {"name": situation.name, "directory": str(situation.folder)},
        "version": version("compute-endpoint"),
        "verdict": worst(outcome.verdict for outcome in outcomes).value,
        "exit_status": int(status),
        "interrupted": status is ExitStatus.INTERRUPTED,
        "seconds": seconds,
        "stages": [outcome.to_dict() for outcome in outcomes],
    }
