"""The multi-user benchmark as Markdown, and its place in the documentation.

python -m bench.multi_user_report multi-user.json     prints the table of an earlier run
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.figures import OFFICIAL, OURS, Metric, Results, spread
from bench.tables import number

START_LIMIT = 0.5  # of the official time: a run that is above it fails
START_GOAL = 1 / 3
BEGIN, END = "<!-- multi-user: begin -->", "<!-- multi-user: end -->"
HEAD = ("what is asked for", "figure", "ours", "official", "ours : official")

METRICS = {
    "start": Metric("command to first heartbeat", "s"),
    "heartbeats": Metric("commands to the last first heartbeat", "s"),
    "start_cpu": Metric("processor time for each user endpoint", "s"),
    "manager_cpu": Metric("of that in sum: manager", "s"),
    "monitor_cpu": Metric("of that in sum: monitor", "s"),
    "all_pss": Metric("memory of all", "MiB"),
    "each_pss": Metric("memory of all for each user endpoint", "MiB"),
    "user_pss": Metric("memory: a user endpoint", "MiB"),
    "keeper_pss": Metric("memory: a keeper", "MiB"),
    "monitor_pss": Metric("memory: the monitor", "MiB"),
    "manager_pss": Metric("memory: the manager", "MiB"),
    "stop": Metric("stop of everything", "s"),
}


def start_setting(pam: bool) -> str:
    """What a single start is called."""
    return "a start, with PAM" if pam else "a start, without PAM"


def burst_setting(count: int) -> str:
    """What so many at once are called."""
    return f"{count} at once"


def start_ratio(results: Results, pam: bool) -> float | None:
    """Our time for a start divided by the official one."""
    ours, official = (results.median(start_setting(pam), side, "start") for side in (OURS, OFFICIAL))
    return ours / official if ours is not None and official else None


def markdown(results: Results) -> str:
    """The machine, the table, and what could not be measured."""
    facts = "; ".join(f"{name}: {value}" for name, value in results.facts.items())
    count = f"{results.settings['starts']} starts of each, {results.settings['users']} users"
    parts = [f"{facts}.\n{count}. Medians [smallest - largest].", _table(_rows(results))]
    if results.failed:
        parts.append("What came to nothing:\n" + "\n".join(f"- {failed}" for failed in results.failed))
    return "\n\n".join(parts) + "\n"


def put_into_docs(file: Path, report: str) -> None:
    """Replace what stands between the markers. Raises ValueError where they are not there."""
    text = file.read_text()
    before, rest = text[: text.index(BEGIN)], text[text.index(END) :]
    file.write_text(f"{before}{BEGIN}\n{report}{rest}")


def _rows(results: Results) -> Iterator[Sequence[str]]:
    for setting in results.engines():
        for metric, facts in METRICS.items():
            ours, official = (results.values(setting, side, metric) for side in (OURS, OFFICIAL))
            if ours or official:
                yield (setting, facts.words, _cell(ours, facts), _cell(official, facts), _ratio(ours, official))


def _cell(values: list[float], facts: Metric) -> str:
    if not values:
        return ""
    middle, smallest, largest = spread(values)
    text = number(middle, facts.unit)
    return text if len(values) == 1 else f"{text} [{number(smallest)} - {number(largest)}]"


def _ratio(ours: list[float], official: list[float]) -> str:
    return f"{number(spread(ours)[0] / spread(official)[0])} x" if ours and official else ""


def _table(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (HEAD, ["---"] * len(HEAD), *rows))


if __name__ == "__main__":
    print(markdown(Results.load(Path(sys.argv[1]))), end="")
