"""What a run has measured: rows, their medians, and the file that keeps them. Needs the standard library only."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OURS = "ours"
OFFICIAL = "official"
ECHO = "echo"
RAW_PARSL = "raw Parsl"
RAW_PARSL_PLAIN = "raw Parsl, not encrypted"
FLOORS = (ECHO, RAW_PARSL, RAW_PARSL_PLAIN)
NO_ENGINE = ""  # the engine of a floor's rows


@dataclass(frozen=True)
class Metric:
    """A figure: what it is in words, its unit, and whether less of it is better."""

    words: str
    unit: str
    less_is_better: bool = True


METRICS = {
    "heartbeat": Metric("spawn to first heartbeat", "s"),
    "first_result": Metric("spawn to first result", "s"),
    "exit": Metric("SIGTERM to exit, idle", "s"),
    "latency": Metric("latency, back to back", "ms"),
    "latency_p95": Metric("latency, back to back, p95", "ms"),
    "paused": Metric("latency after random pauses", "ms"),
    "paused_p95": Metric("latency after random pauses, p95", "ms"),
    "rate": Metric("throughput, no-ops", "tasks/s", less_is_better=False),
    "cpu_per_task": Metric("processor time of a no-op", "ms"),
    "big_rate": Metric("throughput, 1 MB in and out", "tasks/s", less_is_better=False),
    "big_peak": Metric("peak memory meanwhile", "MiB"),
    "idle_pss": Metric("memory when idle", "MiB"),
    "idle_threads": Metric("threads when idle", ""),
    "idle_processes": Metric("processes when idle", ""),
    "idle_cpu": Metric("processor time of an idle minute", "s"),
    "several_heartbeats": Metric("several at once: spawn to all heartbeats", "s"),
    "several_pss": Metric("several at once: memory when idle", "MiB"),
}


@dataclass(frozen=True)
class Row:
    """One measured value. engine: NO_ENGINE for floors; round: from 1, 0 for what is measured once a run."""

    engine: str
    side: str
    metric: str
    value: float
    round: int


@dataclass(frozen=True)
class Failure:
    """A measurement that came to nothing. what: an engine or a case; reason: a sentence."""

    side: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.side} {self.what}".rstrip() + f": {self.reason}"


@dataclass
class Results:
    """All of a run. lost: tasks without a good result by side; settings: how much was measured."""

    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)

    def add(self, engine: str, side: str, round_number: int, values: dict[str, float]) -> None:
        self.rows += [Row(engine, side, metric, value, round_number) for metric, value in values.items()]

    def lose(self, side: str, count: int) -> None:
        self.lost[side] = self.lost.get(side, 0) + count

    def values(self, engine: str, side: str, metric: str) -> list[float]:
        """All values of a figure; for a floor whatever the engine."""
        of = NO_ENGINE if side in FLOORS else engine
        return [row.value for row in self.rows if (row.engine, row.side, row.metric) == (of, side, metric)]

    def median(self, engine: str, side: str, metric: str) -> float | None:
        values = self.values(engine, side, metric)
        return statistics.median(values) if values else None

    def engines(self) -> list[str]:
        """The engines that were measured, in the order of the run."""
        return list(dict.fromkeys(row.engine for row in self.rows if row.engine != NO_ENGINE))

    def save(self, file: Path) -> None:
        """Write the JSON file, a row a line."""
        parts = {key: value for key, value in asdict(self).items() if key != "rows"}
        head = json.dumps(parts, indent=1)
        rows = ",\n".join(f"  {json.dumps(asdict(row))}" for row in self.rows)
        file.write_text(f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n')

    @classmethod
    def load(cls, file: Path) -> Results:
        data = json.loads(file.read_text())
        data["rows"] = [Row(**row) for row in data["rows"]]
        data["failed"] = [Failure(**failure) for failure in data["failed"]]
        return cls(**data)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least a `share` (0 to 1) of the values don't exceed (the nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """The median, the smallest and the largest of some values."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[0], ordered[-1]
