"""Statistics, goals and the table, from made-up figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import ECHO, METRICS, NO_ENGINE, OFFICIAL, OURS, RAW_PARSL, Failure, Results, percentile, spread
from bench.goals import GOALS, Verdict, judge, outcomes, problems
from bench.tables import markdown, number


def results_with(engine: str, metric: str, **values: float) -> Results:
    """ours, official, echo, raw_parsl: one value of the figure for each."""
    names = {"ours": OURS, "official": OFFICIAL, "echo": ECHO, "raw_parsl": RAW_PARSL}
    results = Results()
    for name, value in values.items():
        results.add(engine if name in ("ours", "official") else NO_ENGINE, names[name], 1, {metric: value})
    return results


@pytest.mark.parametrize(
    ("ratio", "factor", "at_least", "verdict"),
    [
        (1.8, 1.8, True, Verdict.MET),
        (1.79, 1.8, True, Verdict.MISSED),
        (0.9, 1.8, True, Verdict.MISSED),
        (0.89, 1.8, True, Verdict.FAR_OFF),
        (0.33, 1 / 3, False, Verdict.MET),
        (0.34, 1 / 3, False, Verdict.MISSED),
        (0.499, 1 / 3, False, Verdict.MISSED),
        (0.51, 1 / 3, False, Verdict.FAR_OFF),
        (0.2, 0.2, False, Verdict.MET),
        (0.31, 0.2, False, Verdict.FAR_OFF),
    ],
)
def test_far_off_is_below_half_of_a_least_or_half_above_a_most(ratio, factor, at_least, verdict):
    assert judge(ratio, factor, at_least=at_least) is verdict


def test_a_ratio_to_the_official_endpoint():
    (outcome,) = outcomes(results_with("thread", "rate", ours=2000, official=1000))

    assert (outcome.ratio, outcome.verdict) == (2.0, Verdict.MET)
    assert outcome.goal.text == "≥ 1.8 x official"


def test_latency_on_parsl_is_held_against_both_floors_in_sum():
    (outcome,) = outcomes(results_with("parsl", "latency", ours=9.0, official=500.0, echo=1.0, raw_parsl=2.0))

    assert (outcome.ratio, outcome.verdict) == (3.0, Verdict.MET)
    assert outcome.goal.text == "≤ 3 x (raw Parsl + echo)"


def test_an_absolute_goal_has_its_unit():
    (outcome,) = outcomes(results_with("thread", "exit", ours=0.25, official=1.4))

    assert (outcome.ratio, outcome.verdict) == (0.25, Verdict.MISSED)
    assert outcome.goal.text == "≤ 0.2 s"


def test_a_goal_without_its_reference_is_not_judged():
    assert outcomes(results_with("thread", "rate", ours=2000)) == []
    assert outcomes(results_with("parsl", "latency", ours=9.0, echo=1.0)) == []


def test_every_goal_names_a_figure_that_exists():
    assert {goal.metric for goal in GOALS} <= set(METRICS)


def test_the_median_of_all_rounds_counts():
    results = Results()
    for number_, ours in enumerate((100, 2000, 1900), start=1):
        results.add("thread", OURS, number_, {"rate": ours})
        results.add("thread", OFFICIAL, number_, {"rate": 1000})

    (outcome,) = outcomes(results)

    assert outcome.ratio == 1.9


def test_a_run_fails_for_a_lost_task_of_ours_only():
    results = Results()
    results.lose(OFFICIAL, 3)
    assert problems(results, []) == []

    results.lose(OURS, 1)
    assert problems(results, []) == ["1 tasks of ours have no result"]


def test_a_run_fails_for_a_measurement_that_came_to_nothing_unless_it_is_of_the_official_endpoint():
    failed = [Failure(OFFICIAL, "process", "hung"), Failure(OURS, "thread", "no heartbeat")]

    assert problems(Results(failed=failed), []) == ["ours thread: no heartbeat"]


def test_a_run_fails_for_a_figure_that_is_far_off_but_not_for_one_that_is_missed():
    near = results_with("thread", "rate", ours=1000, official=1000)
    far = results_with("thread", "rate", ours=800, official=1000)

    assert problems(near, outcomes(near)) == []
    assert problems(far, outcomes(far)) == ["thread: throughput, no-ops: 0.8, the goal is ≥ 1.8 x official"]


def test_the_nearest_rank():
    values = [float(value) for value in range(20, 0, -1)]

    assert [percentile(values, share) for share in (0.0, 0.05, 0.5, 0.95, 1.0)] == [1, 1, 10, 19, 20]
    assert percentile([7.0], 0.95) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_the_spread():
    assert spread([3.0, 1.0, 2.0, 10.0]) == (2.5, 1.0, 10.0)


def test_a_number_has_three_digits_that_count():
    assert [number(value) for value in (0.0123, 1.234, 12.34, 1234.5)] == ["0.012", "1.23", "12.3", "1,234"]
    assert number(2.0, "ms") == "2.00 ms"


def test_the_table_has_the_ratios_the_goal_and_the_verdict():
    results = results_with("parsl", "rate", ours=1000, official=500, raw_parsl=1250)

    (row,) = [line for line in markdown(results).splitlines() if line.startswith("| parsl")]

    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "parsl",
        "throughput, no-ops",
        "1,000 tasks/s",
        "500 tasks/s",
        "2.00 x",
        "1,250 tasks/s (raw Parsl)",
        "0.800 x",
        "≥ 1.5 x official; ≥ 0.9 x raw Parsl",
        "yes; no",
    ]


def test_the_file_keeps_all(tmp_path: Path):
    results = results_with("thread", "rate", ours=2000, official=1000, echo=7000)
    results.facts = {"processors": "2 x some"}
    results.settings = {"rounds": 1, "engines": ["thread"]}
    results.failed = [Failure(OFFICIAL, "process", "hung")]
    results.lose(OURS, 0)
    results.save(tmp_path / "file.json")

    assert Results.load(tmp_path / "file.json") == results


def test_where_a_goal_is_not_reached_yet_a_run_fails_when_it_is_far_from_what_is():
    assert judge(0.6, 1 / 3, at_least=False, held=0.5) is Verdict.MISSED
    assert judge(0.8, 1 / 3, at_least=False, held=0.5) is Verdict.FAR_OFF
    assert judge(0.3, 1 / 3, at_least=False, held=0.5) is Verdict.MET
    assert judge(0.4, 0.9, at_least=True, held=0.6) is Verdict.MISSED
