"""What ours has to reach, as data; and one rule for whether it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from bench.figures import ECHO, METRICS, OFFICIAL, OURS, RAW_PARSL, Results

FAR_BELOW = 0.5  # of an "at least" goal
FAR_ABOVE = 1.5  # times an "at most" goal

Reference = Callable[[Results, str, str], float | None]


class Verdict(Enum):
    """How a figure stands to its goal; the value is what a table says."""

    MET = "yes"
    MISSED = "no"
    FAR_OFF = "no, far off"


@dataclass(frozen=True)
class Goal:
    """One figure of ours against `factor` times a reference.

    held: where the goal is not reached (on a noisy machine, in a short run), the factor that is; a run fails when it is
        far off that one.
    engines: for which it counts; words: what the reference is called; at_least: else it is "at most".
    """

    metric: str
    engines: tuple[str, ...]
    factor: float
    words: str
    reference: Reference
    at_least: bool = False
    held: float | None = None

    @property
    def text(self) -> str:
        sign = "≥" if self.at_least else "≤"
        if self.reference is _one:
            return f"{sign} {self.factor:g} {METRICS[self.metric].unit}"
        return f"{sign} {_fraction(self.factor)} x {self.words}"


@dataclass(frozen=True)
class Outcome:
    """A goal with what was measured. ratio: ours divided by the reference (the value itself for absolute goals)."""

    goal: Goal
    engine: str
    ratio: float
    verdict: Verdict


def judge(ratio: float, factor: float, *, at_least: bool, held: float | None = None) -> Verdict:
    """Whether a ratio reaches `factor`.

    Far off, which fails a run, is less than half of an "at least" goal, or more than half above an "at most" goal:
    below 0.9 for "at least 1.8", above 1/2 for "at most 1/3". With `held` it is that factor that counts for far off.
    """
    kept = factor if held is None else held
    if at_least:
        met, far = ratio >= factor, ratio < kept * FAR_BELOW
    else:
        met, far = ratio <= factor, ratio > kept * FAR_ABOVE
    if met:
        return Verdict.MET
    return Verdict.FAR_OFF if far else Verdict.MISSED


def outcomes(results: Results, goals: Iterable[Goal] | None = None) -> list[Outcome]:
    """Every goal of the list, for every engine for which both figures were measured."""
    found = []
    for goal in GOALS if goals is None else goals:
        for engine in goal.engines:
            ours = results.median(engine, OURS, goal.metric)
            reference = goal.reference(results, engine, goal.metric)
            if ours is not None and reference:
                ratio = ours / reference
                found.append(
                    Outcome(goal, engine, ratio, judge(ratio, goal.factor, at_least=goal.at_least, held=goal.held))
                )
    return found


def problems(results: Results, found: Iterable[Outcome]) -> list[str]:
    """Why a run fails, in sentences; empty where it does not."""
    sentences = [f"{outcome.engine}: {describe(outcome)}" for outcome in found if outcome.verdict is Verdict.FAR_OFF]
    if results.lost.get(OURS):
        sentences.append(f"{results.lost[OURS]} tasks of ours have no result")
    return sentences + [str(failed) for failed in results.failed if failed.side != OFFICIAL]


def describe(outcome: Outcome) -> str:
    return f"{METRICS[outcome.goal.metric].words}: {outcome.ratio:.3g}, the goal is {outcome.goal.text}"


def _of(side: str) -> Reference:
    def reference(results: Results, engine: str, metric: str) -> float | None:
        return results.median(engine, side, metric)

    return reference


def _raw_parsl_and_echo(results: Results, engine: str, metric: str) -> float | None:
    parts = [results.median(engine, side, metric) for side in (RAW_PARSL, ECHO)]
    return None if None in parts else sum(part for part in parts if part is not None)


def _one(_results: Results, _engine: str, _metric: str) -> float | None:
    return 1.0


def _fraction(factor: float) -> str:
    """A third is a third, not 0.3333."""
    for denominator in (1, 3, 8):
        numerator = factor * denominator
        if denominator > 1 and factor < 1 and abs(numerator - round(numerator)) < 1e-9:
            return f"{round(numerator)}/{denominator}"
    return f"{factor:g}"


POOLS = ("thread", "process")
ALL = ("thread", "process", "parsl")

GOALS = (
    Goal("heartbeat", ("thread",), 1 / 8, "official", _of(OFFICIAL)),
    Goal("first_result", ("parsl",), 1 / 3, "official", _of(OFFICIAL)),
    Goal("exit", ALL, 0.2, "", _one),
    Goal("latency", ("thread",), 2.5, "echo", _of(ECHO)),
    Goal("latency", ("process",), 4.0, "echo", _of(ECHO)),
    Goal("latency", ("parsl",), 3.0, "(raw Parsl + echo)", _raw_parsl_and_echo),
    Goal("rate", POOLS, 1.8, "official", _of(OFFICIAL), at_least=True),
    Goal("rate", ("parsl",), 1.5, "official", _of(OFFICIAL), at_least=True),
    Goal("rate", ("parsl",), 0.9, "raw Parsl", _of(RAW_PARSL), at_least=True),
    Goal("cpu_per_task", POOLS, 1 / 3, "official", _of(OFFICIAL)),
    Goal("cpu_per_task", ("parsl",), 2 / 3, "official", _of(OFFICIAL)),
    Goal("big_rate", ALL, 2.0, "official", _of(OFFICIAL), at_least=True),
    Goal("big_peak", ALL, 1.0, "official", _of(OFFICIAL)),
    Goal("idle_pss", ("thread",), 1 / 3, "official", _of(OFFICIAL)),
    Goal("idle_cpu", POOLS, 0.02, "", _one, held=0.06),  # a short run's processor time is a few ticks of the clock
)
