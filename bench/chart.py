"""The chart of a run, from its JSON file:  python -m bench.chart performance.json performance.png

Runs in an environment with matplotlib (requirements/bench.txt), which nothing else needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen
from matplotlib import pyplot
from matplotlib.axes import Axes

from bench.figures import ECHO, METRICS, OFFICIAL, OURS, RAW_PARSL, Results, spread

COLOURS = {OURS: "#1b6ca8", OFFICIAL: "#d08a2e"}
FLOOR_COLOURS = {ECHO: "#555555", RAW_PARSL: "#9a3b6b"}
BAR = 0.38  # width, in steps of the axis
DOTS_PER_INCH = 130


@dataclass(frozen=True)
class Panel:
    """One figure for every engine; floors are drawn as lines. log: for figures that differ by hundreds."""

    metric: str
    floors: tuple[str, ...] = ()
    log: bool = False


PANELS = (
    Panel("latency", (ECHO, RAW_PARSL), log=True),
    Panel("rate", (RAW_PARSL,)),
    Panel("cpu_per_task", (RAW_PARSL,)),
    Panel("big_rate", (RAW_PARSL,)),
    Panel("big_peak"),
    Panel("first_result"),
    Panel("idle_pss"),
    Panel("idle_cpu", log=True),
)


def draw(results: Results, file: Path) -> None:
    """Write the PNG: a panel for each figure that was measured."""
    panels = [panel for panel in PANELS if any(row.metric == panel.metric for row in results.rows)]
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = pyplot.subplots(lines, columns, figsize=(3.6 * columns, 3.2 * lines), squeeze=False)
    axes = list(grid.flat)
    for panel, axis in zip(panels, axes, strict=False):
        _draw_panel(results, panel, axis)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.legend(*_legend(axes), loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(file, dpi=DOTS_PER_INCH, metadata={"Software": None})
    pyplot.close(figure)


def _draw_panel(results: Results, panel: Panel, axis: Axes) -> None:
    engines = results.engines()
    facts = METRICS[panel.metric]
    for offset, side in ((-BAR / 2, OURS), (BAR / 2, OFFICIAL)):
        bars = list(_bars(results, engines, side, panel.metric))
        if not bars:
            continue
        places, middles, below, above = zip(*bars, strict=True)
        axis.bar(
            [place + offset for place in places], middles, BAR, yerr=(below, above), color=COLOURS[side], label=side
        )
    for floor in panel.floors:
        value = results.median("", floor, panel.metric)
        if value is not None:
            axis.axhline(value, color=FLOOR_COLOURS[floor], linestyle="--", linewidth=1, label=floor)
    axis.set_xticks(range(len(engines)), engines)
    axis.set_title(f"{facts.words}\n({facts.unit}, {'less' if facts.less_is_better else 'more'} is better)", fontsize=9)
    if panel.log:
        axis.set_yscale("log")
    axis.spines[["top", "right"]].set_visible(False)


def _bars(
    results: Results, engines: Sequence[str], side: str, metric: str
) -> Iterator[tuple[int, float, float, float]]:
    """For each engine: its place, the median, and how far the extremes are below and above it."""
    for place, engine in enumerate(engines):
        if values := results.values(engine, side, metric):
            middle, smallest, largest = spread(values)
            yield place, middle, middle - smallest, largest - middle


def _legend(axes: Sequence[Axes]) -> tuple[list[object], list[str]]:
    """Each name once, whichever panels have it."""
    found: dict[str, object] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: python -m bench.chart RESULTS.json CHART.png", file=sys.stderr)
        return 64
    draw(Results.load(Path(sys.argv[1])), Path(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
