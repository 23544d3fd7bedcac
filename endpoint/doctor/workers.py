"""The Python in which functions would run, as the job has seen it."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from endpoint.doctor.findings import Finding, failed, ok, warning
from endpoint.doctor.situation import JobReport, NotTried, Situation
from endpoint.errors import ExitStatus, Mender

SDK_DILL = "0.3.9"  # what the official SDK 4.19 pins
NOTED_SKEW_S = 5.0
SMALL_BYTES = 200 * 1024 * 1024
ERROR = "error: "


def check(situation: Situation) -> Iterator[Finding]:
    if not situation.buildable:
        raise NotTried("no engine can be built")
    if any(trial.provider is None and trial.for_job for trial in situation.buildable):
        yield from _of_python(_here(), "this machine", {})
    for seen in situation.reports:
        yield from _of_report(seen)
    if not situation.reports and any(trial.provider for trial in situation.buildable):
        raise NotTried("no job has told of the workers' environment")


def _here() -> dict[str, Any]:
    """As the job's program tells it, of this Python."""
    found: dict[str, str] = {}
    for name in ("endpoint.worker.run", "dill"):
        try:
            found[name] = str(getattr(importlib.import_module(name), "__version__", ""))
        except ImportError as error:
            found[name] = f"{ERROR}{error}"
    return {"path": sys.executable, "version": platform.python_version(), "modules": found}


def _of_report(seen: JobReport) -> Iterator[Finding]:
    report = seen.report
    host = str(report.get("host"))
    facts: dict[str, Any] = {"engine": seen.trial.summary, "host": host}
    pool, functions = report.get("python"), report.get("functions")
    if isinstance(functions, Mapping) and isinstance(pool, Mapping):
        yield ok(
            f"The pool of workers runs in {pool.get('path')}, functions in the user's own Python beside it",
            pool=pool.get("path"),
            **facts,
        )
    yield from _of_python(functions if isinstance(functions, Mapping) else pool, host, facts)
    yield from _clock(seen.clock_offset_s, host, facts)
    yield from _room(report, host, facts)


def _of_python(found: Any, host: str, facts: dict[str, Any]) -> Iterator[Finding]:
    if not isinstance(found, Mapping) or "error" in found:
        said = found.get("error") if isinstance(found, Mapping) else "nothing"
        yield failed(
            f"The Python of the functions on {host} does not run: {said}",
            "Look at worker_init, and at what it puts on PATH",
            code="NO_PYTHON",
            status=ExitStatus.BAD_CONFIG,
            **facts,
        )
        return
    modules = found.get("modules")
    versions = dict(modules) if isinstance(modules, Mapping) else {}
    facts = {
        **facts,
        "python": found.get("path"),
        "python_version": found.get("version"),
        "modules": versions,
    }
    missing = {name: text.removeprefix(ERROR) for name, text in versions.items() if str(text).startswith(ERROR)}
    words = f"Functions run on {host} in {found.get('path')} (Python {found.get('version')})"
    if missing:
        yield failed(
            f"{words}, which lacks {', '.join(missing)}",
            f"Install {', '.join(sorted({_package(name) for name in missing}))} there, or have worker_init activate "
            "another environment",
            code="NOT_IMPORTABLE",
            status=ExitStatus.BAD_CONFIG,
            detail="\n".join(f"{name}: {text}" for name, text in missing.items()),
            **facts,
        )
    elif (dill := versions.get("dill")) and dill != SDK_DILL:
        yield warning(
            f"{words}, with dill {dill}; the SDK has {SDK_DILL}, and warns every user of the difference",
            f"Install dill=={SDK_DILL} there",
            code="DILL",
            sdk_dill=SDK_DILL,
            **facts,
        )
    else:
        yield ok(f"{words}, with dill {versions.get('dill')}", **facts)


def _package(module: str) -> str:
    top = module.partition(".")[0]
    return "compute-endpoint" if top == "endpoint" else top


def _clock(ahead: float | None, host: str, facts: dict[str, Any]) -> Iterator[Finding]:
    if ahead is None:
        return
    facts = {**facts, "ahead_s": ahead}
    if abs(ahead) > NOTED_SKEW_S:
        yield warning(
            f"The clocks of {host} and this machine are {abs(ahead):.1f} s apart",
            "Set them, and keep them set",
            code="CLOCK",
            **facts,
        )
    else:
        yield ok(f"The clocks of {host} and this machine agree within {max(0.001, abs(ahead)):.3f} s", **facts)


def _room(report: Mapping[str, Any], host: str, facts: dict[str, Any]) -> Iterator[Finding]:
    disk, limits = report.get("disk"), report.get("limits")
    if not isinstance(disk, Mapping) or not isinstance(limits, Mapping):
        return
    free = {path: entry.get("free_bytes") for path, entry in disk.items() if isinstance(entry, Mapping)}
    small = [path for path, number in free.items() if isinstance(number, int) and number < SMALL_BYTES]
    facts = {**facts, "free_bytes": free, "limits": dict(limits)}
    told = ", ".join(f"{path} {number / 2**30:.1f} GB" for path, number in free.items() if isinstance(number, int))
    if small:
        yield warning(
            f"Little space is free on {host}: {told}",
            f"Make room in {', '.join(small)}",
            code="DISK",
            mender=Mender.ADMIN,
            **facts,
        )
    else:
        yield ok(f"Free on {host}: {told}; {limits.get('cores')} cores", **facts)
