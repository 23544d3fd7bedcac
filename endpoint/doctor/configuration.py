"""Whether it runs now, and every problem of its files, as `check-config` tells them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from endpoint.config.examine import KINDS, Examiner, Report
from endpoint.config.model import load_manager_config
from endpoint.config.paths import CONFIG, PID
from endpoint.config.report import Problem
from endpoint.doctor.findings import Finding, failed, failure, ok, warning
from endpoint.doctor.situation import Situation
from endpoint.errors import ConfigError, ExitStatus
from endpoint.lease import LeaseState, read_lease


def check(situation: Situation) -> Iterator[Finding]:
    """Leaves `lease` and `config`."""
    try:
        situation.lease = read_lease(situation.folder / PID)
        yield _running(situation.lease)
    except ConfigError as error:
        yield failure(error)
    examiner = Examiner(None)  # what the template makes of options is a stage of its own
    try:
        examiner.folder(situation.folder)
    except ConfigError as error:
        yield failure(error)
        return
    for report in examiner.reports.values():
        yield from _of_file(report)
    if all(report.valid for report in examiner.reports.values() if report.kind == "endpoint"):
        situation.config = load_manager_config(situation.folder / CONFIG)


def _running(lease: LeaseState) -> Finding:
    facts: dict[str, Any] = {"state": lease.state, "pid": lease.pid, "host": lease.host}
    if lease.state == "running":
        return ok(f"It runs now: process {lease.pid} on {lease.host or 'this host'}; nothing here disturbs it", **facts)
    if lease.state == "elsewhere":
        where = f"on another host, {lease.host}" if lease.host else "somewhere; its PID file does not say where"
        return ok(f"It runs now: process {lease.pid} {where}", **facts)
    if lease.state == "stale":
        return warning(
            f"It doesn't run, and it did not end as it should: process {lease.pid} is gone",
            "Look at the end of its endpoint.log; a start goes on from there",
            code="STALE",
            **facts,
        )
    return ok("It doesn't run now", **facts)


def _of_file(report: Report) -> Iterator[Finding]:
    facts: dict[str, Any] = {"file": report.file, "kind": report.kind, "notes": list(report.notes)}
    if report.valid:
        yield ok(f"{report.file} is valid ({KINDS[report.kind]})", **facts)
    for problem in report.problems:
        yield _problem(problem, report.kind)


def _problem(problem: Problem, kind: str) -> Finding:
    place: dict[str, Any] = {
        "file": problem.source,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
    }
    words = str(problem)
    if problem.warning:
        return warning(words.replace(": warning: ", ": ", 1), "Change the line", code="CONFIG_WARNING", **place)
    return failed(
        words,
        "Correct the line; check-config shows it underlined",
        code="BAD_CONFIG",
        status=ExitStatus.MAPPING_UNREADABLE if kind == "identity-mapping" else ExitStatus.BAD_CONFIG,
        **place,
    )
