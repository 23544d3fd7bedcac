"""`audit`: whether an audit log is as it was written, and what it says."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from endpoint.cli.common import Settings, common_options, echo_json, json_option, pass_settings
from endpoint.errors import ConfigError, ExitStatus, Stage, UsageError

if TYPE_CHECKING:
    from endpoint.privileged.audit_chain import Line, Verdict

LOCK_S = 2.0  # how long whoever writes is waited for
LOCK_POLL_S = 0.01
WHO = ("endpoint", "user_endpoint", "uid", "user")
SHOWN_APART = frozenset({"number", "time", "event", "previous", *WHO})
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_OFFICIAL = re.compile(
    r"(?P<time>\d{4}-\S+) uid=(?P<uid>\d*) pid=(?P<pid>\d*) (?:uep=(?P<user_endpoint>\S*)|eid=(?P<endpoint>\S*)) "
    r"(?:fid=(?P<function>\S*) tid=(?P<task>\S*) bid=(?P<block>\S*) (?:jid=(?P<job>\S*) )?)?"
    r"(?P<event>(?:Begin|End) CEP session|\S+)(?: -+| =+)?(?: (?P<message>.*))?"
)

_files_argument = click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@click.group("audit")
def audit() -> None:
    """Look at an audit log: what happened, and that nobody has changed it since."""


@audit.command("verify")
@_files_argument
@click.option("--holds", metavar="HASH", help="Also check that a line with this hash is there.")
@json_option
@common_options
@pass_settings
def verify(settings: Settings, /, files: tuple[Path, ...], holds: str | None) -> int:
    """Check that no line was changed, removed or put in. FILE...: one log's files, the oldest first.

    Status 1, and the first line that is wrong, if so. Lines that are missing at the end can't be told from lines that
    were never written: keep the last hash, which this prints, on another machine, and ask for it later with --holds.
    """
    from endpoint.privileged.audit_chain import verify as follow
    from endpoint.privileged.audit_lines import read_line

    with ExitStack() as stack:
        lines = _lines(stack, files)
        first = next(lines, None)
        if first is not None and read_line(first.text) is None and _official(first.text):
            raise UsageError(
                f"{files[0]} is in the official form, which has no hashes",
                hint="Set audit_format to json for a log that can be verified",
                code="NO_CHAIN",
            )
        verdict = follow(() if first is None else _with_first(first, lines), holds=holds)
    if settings.json:
        echo_json(_as_json(verdict))
    else:
        click.echo(_as_text(verdict))
    return ExitStatus.OK if verdict.flaw is None else ExitStatus.FAILED


@audit.command("show")
@_files_argument
@click.option("--user", metavar="NAME|UID", help="Only what concerns this local user.")
@click.option("--task", metavar="ID", help="Only what happened to this task.")
@click.option("--since", metavar="TIME", help="Only from then on: 2026-01-31T10:00 (UTC), or 90m, 2h, 7d ago.")
@json_option
@common_options
@pass_settings
def show(settings: Settings, /, files: tuple[Path, ...], user: str | None, task: str | None, since: str | None) -> None:
    """Print the records of FILE..., in either form, that all the options let through."""
    start = _time(since, UsageError) if since else None
    with ExitStack() as stack:
        found = (
            record
            for line in _lines(stack, files)
            if (record := _record(line.text)) is not None
            and (user is None or user in (str(record.get("user")), str(record.get("uid"))))
            and (task is None or record.get("task") == task)
            and (start is None or _when(record) >= start)
        )
        if settings.json:
            _echo_list(found)
        else:
            for record in found:
                click.echo(_as_line(record))


# -- reading -----------------------------------------------------------------------------------------------------------


def _lines(stack: ExitStack, files: tuple[Path, ...]) -> Iterator[Line]:
    """The lines of all files. Raises ConfigError."""
    from endpoint.privileged.audit_chain import lines_of

    opened = []
    for path in files:
        try:
            stream = stack.enter_context(path.open("rb"))
            opened.append((path, stream, _size(stream)))
        except OSError as error:
            raise ConfigError(f"{path} can't be read: {error.strerror}", stage=Stage.RUN) from error
    return (line for path, stream, size in opened for line in lines_of(str(path), stream, size))


def _size(stream: BinaryIO) -> int:
    """The file's size when nobody is in the midst of a line."""
    deadline = time.monotonic() + LOCK_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_POLL_S)
        else:
            break
    size = os.fstat(stream.fileno()).st_size
    fcntl.flock(stream, fcntl.LOCK_UN)
    return size


def _with_first(first: Line, rest: Iterator[Line]) -> Iterator[Line]:
    yield first
    yield from rest


def _record(text: bytes) -> Mapping[str, Any] | None:
    from endpoint.privileged.audit_lines import read_line

    return read_line(text) or _official(text)


def _official(text: bytes) -> dict[str, Any] | None:
    """The record of a line in the official form."""
    found = _OFFICIAL.fullmatch(text.decode(errors="replace"))
    if found is None:
        return None
    record: dict[str, Any] = {key: value for key, value in found.groupdict().items() if value}
    return record | {key: int(record[key]) for key in ("uid", "pid") if key in record}


def _time(text: str, error: type[Exception] = ValueError) -> datetime:
    """A point in time, or so long ago."""
    if ago := _AGO.fullmatch(text):
        return datetime.now(timezone.utc) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise error(f"{text!r} is not a time; write it like 2026-01-31T10:00, or 2h") from None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _when(record: Mapping[str, Any]) -> datetime:
    try:
        return _time(str(record.get("time")))
    except ValueError:
        return datetime.fromtimestamp(0, timezone.utc)


# -- printing ----------------------------------------------------------------------------------------------------------


def _as_text(verdict: Verdict) -> str:
    from endpoint.privileged.audit_lines import NOTHING_BEFORE

    if flaw := verdict.flaw:
        where = f"{flaw.file}, line {flaw.line}: " if flaw.file else ""
        return f"{where}{flaw.what}: {flaw.reason}."
    said = [f"{verdict.lines} lines, as they were written."]
    if verdict.before not in ("", NOTHING_BEFORE):
        said.append(f"The first file continues one that is not given here; its last hash was {verdict.before}.")
    if verdict.torn:
        said.append(f"{verdict.torn} lines were cut off when they were written, which the log says itself.")
    if verdict.last:
        said.append(f"The last hash is {verdict.last}")
    return "\n".join(said)


def _as_json(verdict: Verdict) -> dict[str, Any]:
    flaw = verdict.flaw
    found = {"valid": flaw is None, "lines": verdict.lines, "before": verdict.before, "last": verdict.last}
    told = None if flaw is None else {"file": flaw.file, "line": flaw.line, "what": flaw.what, "reason": flaw.reason}
    return {**found, "torn": verdict.torn, "flaw": told}


def _as_line(record: Mapping[str, Any]) -> str:
    """One record for people; what a user may have written can't move the cursor."""
    who = record.get("user") or record.get("uid")
    where = record.get("user_endpoint") or record.get("endpoint")
    rest = (f"{key}={value}" for key, value in record.items() if key not in SHOWN_APART and value is not None)
    words = (record.get("time"), f"{record['event']:<12}", "-" if who is None else who, where or "-", *rest)
    text = "  ".join(str(word) for word in words)
    return "".join(char if char.isprintable() else "?" for char in text)


def _echo_list(found: Iterator[Mapping[str, Any]]) -> None:
    """One JSON document, printed as it comes: a log may be larger than the memory."""
    before = "[\n"
    for record in found:
        click.echo(f"{before}{json.dumps(dict(record))}", nl=False)
        before = ",\n"
    click.echo("[]" if before == "[\n" else "\n]")
