"""The outcomes of a benchmark as tables and files; nothing in them names this machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.fault_cases import all_faults
from bench.fault_count import Outcome, most_frequent
from bench.fault_run import HEARTBEAT_S

COLUMNS: tuple[tuple[str, Callable[[Outcome], float | None]], ...] = (
    ("tasks", lambda one: one.tasks),
    ("answered", lambda one: one.answered),
    ("errors told", lambda one: one.errors_told + one.expected_errors),
    ("of them never started", lambda one: one.never_started),
    ("lost", lambda one: one.lost),
    ("run twice", lambda one: one.run_twice),
    ("double answers", lambda one: one.doubles_same + one.doubles_different),
    ("s to heartbeat", lambda one: _seconds(one.heartbeat_s)),
    ("s to last answer", lambda one: _seconds(one.last_answer_s)),
    ("starts refused", lambda one: one.starts_refused),
    ("left running", lambda one: max(one.left_running, one.left_after_stop)),
)


def table(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table: for each fault and engine one line for each endpoint; of several runs the worst of each."""
    names = ["fault", "engine", "endpoint", *(name for name, _ in COLUMNS)]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for (fault, engine, endpoint), runs in _grouped(outcomes).items():
        cells = [_worst([value(run) for run in runs], min if name == "answered" else max) for name, value in COLUMNS]
        failed = next((run.failure for run in runs if run.failure), "")
        text = f"did not run: {failed}" if failed and len(runs) == 1 else " | ".join(cells)
        lines.append(f"| {fault} | {engine} | {endpoint} | {text} |")
    return "\n".join(lines)


def errors(outcomes: Sequence[Outcome]) -> str:
    """What was told to users of the tasks that got an error, and what else is worth knowing, as a Markdown list."""
    lines = []
    for one in outcomes:
        facts = [most_frequent(one.errors)] if one.errors else []
        facts += [f"SIGTERM to exit {one.terminate_s} s"] if one.terminate_s is not None else []
        facts += [f"ended by itself {one.ended_by_itself} times"] if one.ended_by_itself else []
        facts += [f"{one.lost_started} of {one.lost} lost tasks had begun, {one.lost_finished} ended"] * bool(one.lost)
        facts += [f"{one.finished} of the tasks with an error had ended"] if one.finished else []
        facts += [f"{one.doubles_different} different answers to one task"] if one.doubles_different else []
        facts += [f"left running: {', '.join(one.left_commands)}"] if one.left_commands else []
        if one.error_after_start_s:
            median, worst = one.error_after_start_s
            facts.append(f"errors told {median} s (median), {worst} s (worst) after it was back")
        if facts:
            lines.append(f"- {one.fault}, {one.engine}, {one.endpoint}: {'; '.join(facts)}")
    return "\n".join(lines)


def write(outcomes: Sequence[Outcome], directory: Path) -> None:
    """`reliability.json` and `reliability.md` in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
    rows = [{**asdict(one), "good": one.good} for one in outcomes]
    document = {"machine": machine, "heartbeat_period_s": HEARTBEAT_S, "runs": rows}
    (directory / "reliability.json").write_text(json.dumps(document, indent=1) + "\n")
    (directory / "reliability.md").write_text(_page(outcomes))


def _page(outcomes: Sequence[Outcome]) -> str:
    known = all_faults()
    met = list(dict.fromkeys(one.fault for one in outcomes))
    legend = "\n".join(f"- `{name}`: {known[name].says}" for name in met)
    return (
        "# Reliability under faults\n\n"
        "Made by `python -m bench.faults`. Each run puts one endpoint with two workers under one fault when about a\n"
        "quarter of its tasks is answered. A task notes its start and its end in a file; lost is one that was not\n"
        f"answered when all was up again. Heartbeats come every {HEARTBEAT_S} s. Of several runs the worst is shown.\n"
        "\n"
        f"{legend}\n\n{table(outcomes)}\n\n## What was told\n\n{errors(outcomes)}\n"
    )


def _grouped(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str], list[Outcome]]:
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for fault, engine in dict.fromkeys((one.fault, one.engine) for one in outcomes):
        for endpoint in sorted({one.endpoint for one in outcomes}, reverse=True):  # ours, then official
            runs = [one for one in outcomes if (one.fault, one.engine, one.endpoint) == (fault, engine, endpoint)]
            if runs:
                groups[fault, engine, endpoint] = runs
    return groups


def _worst(values: Sequence[float | None], worst: Callable[[list[float]], float]) -> str:
    numbers = [value for value in values if value is not None]
    return str(worst(numbers)) if numbers else "-"


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
