"""A run as Markdown: what was measured, ratios and goals.

python -m bench.tables performance.json     prints the table of an earlier run
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.figures import ECHO, METRICS, OFFICIAL, OURS, RAW_PARSL, RAW_PARSL_PLAIN, Results, spread
from bench.goals import Outcome, outcomes

HEAD = ("engine", "what", "ours", "official", "ours : official", "floor", "ours : floor", "goal", "reached")


def markdown(results: Results) -> str:
    """All of it: the machine, the table, what was lost, and the floors."""
    parts = [
        _facts(results),
        _table(HEAD, _rows(results)),
        "The floors:",
        _table(("what", ECHO, RAW_PARSL, RAW_PARSL_PLAIN), _floors(results)),
        _losses(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def number(value: float, unit: str = "") -> str:
    """Three digits that count, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f} {unit}".rstrip()


def figure(value: float, metric: str) -> str:
    """A value with its unit; what has none is a count."""
    unit = METRICS[metric].unit
    return number(value, unit) if unit else f"{value:,.0f}"


def _rows(results: Results) -> Iterable[Sequence[str]]:
    found = outcomes(results)
    for engine in results.engines():
        for metric, facts in METRICS.items():
            ours, official = (results.median(engine, side, metric) for side in (OURS, OFFICIAL))
            if ours is None and official is None:
                continue
            floor, words = _floor(results, engine, metric)
            goals = [outcome for outcome in found if (outcome.engine, outcome.goal.metric) == (engine, metric)]
            yield (
                engine,
                facts.words,
                _cell(results, engine, OURS, metric),
                _cell(results, engine, OFFICIAL, metric),
                _ratio(ours, official),
                "" if floor is None else f"{figure(floor, metric)} ({words})",
                _ratio(ours, floor),
                _goal_cell(goals),
                "; ".join(outcome.verdict.value for outcome in goals),
            )


def _floor(results: Results, engine: str, metric: str) -> tuple[float | None, str]:
    """The floor that concerns a figure, and what it is called."""
    echo, parsl = (results.median(engine, side, metric) for side in (ECHO, RAW_PARSL))
    if engine != "parsl":
        return echo, ECHO
    if metric.startswith("latency") and echo is not None and parsl is not None:
        return echo + parsl, f"{RAW_PARSL} + {ECHO}"
    return parsl, RAW_PARSL


def _floors(results: Results) -> Iterable[Sequence[str]]:
    sides = (ECHO, RAW_PARSL, RAW_PARSL_PLAIN)
    for metric, facts in METRICS.items():
        cells = [_cell(results, "", side, metric) for side in sides]
        if any(cells):
            yield (facts.words, *cells)


def _cell(results: Results, engine: str, side: str, metric: str) -> str:
    """The median, with the smallest and the largest where there is more than one value."""
    values = results.values(engine, side, metric)
    if not values:
        return ""
    middle, smallest, largest = spread(values)
    text = figure(middle, metric)
    if len(values) == 1:
        return text
    least, most = (figure(value, metric).split()[0] for value in (smallest, largest))  # the unit stands once
    return f"{text} [{least} - {most}]"


def _ratio(ours: float | None, other: float | None) -> str:
    return "" if ours is None or not other else f"{number(ours / other)} x"


def _goal_cell(goals: Sequence[Outcome]) -> str:
    return "; ".join(outcome.goal.text for outcome in goals)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(row) for row in rows]
    if not lines:
        return ""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines))


def _facts(results: Results) -> str:
    facts = [f"{name}: {value}" for name, value in results.facts.items()]
    settings = [f"{name} {value}" for name, value in results.settings.items() if type(value) in (int, float)]
    return f"{'; '.join(facts)}.\nCounts: {', '.join(settings)}. Medians [smallest - largest]."


def _losses(results: Results) -> str:
    lost = ", ".join(f"{side} {count}" for side, count in results.lost.items())
    parts = [f"Tasks without a result: {lost}."] if lost else []
    if results.failed:
        parts.append("Measurements that came to nothing:\n" + "\n".join(f"- {failed}" for failed in results.failed))
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(markdown(Results.load(Path(sys.argv[1]))), end="")
