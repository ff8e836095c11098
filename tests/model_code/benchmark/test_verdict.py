import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.benchmark.goals import RESAMPLED, Goals, load_goals
from model_code.benchmark.verdict import Draws, Evidence, Verdict
from model_code.benchmark.verdict import decide as decide_on
from model_code.errors import GateError

GOOD = {
    "mean_ms": 2.0,
    "p50_ms": 2.0,
    "p90_ms": 2.5,
    "p99_ms": 3.0,
    "throughput": 400.0,
    "accuracy": 0.7,
    "auc": 0.75,
    "log_loss": 0.5,
    "flips": 0,
    "flip_fraction": 0.0,
    "max_abs_dp": 0.001,
    "p99_abs_dp": 0.0001,
    "non_finite": 0,
    "calibration_error": 0.02,
    "slice_flip_fraction": 0.0,
    "batch_dependence": 0.0,
}
SHIPPED = load_goals()


def sure(metrics) -> Evidence:
    """Evidence in which every resample equals the value."""
    known = {name for name in RESAMPLED & metrics.keys() if metrics[name] is not None}
    return Evidence(metrics, {name: Draws(np.full(10, metrics[name])) for name in known})


def decide(candidate, reference, champion, goals, *, simulated) -> Verdict:
    other = None if champion is None else sure(champion)
    return decide_on(sure(candidate), sure(reference), other, goals, simulated=simulated)


def goals(*entries) -> Goals:
    return Goals.model_validate({"goals": entries})


def judge(entry, candidate, reference=GOOD, champion=GOOD):
    verdict = decide(candidate, reference, champion, goals(entry), simulated=False)
    return verdict.rows[0]


def test_a_good_candidate_passes_the_shipped_goals():
    verdict = decide(GOOD, GOOD, GOOD, SHIPPED, simulated=False)
    assert (verdict.verdict, verdict.promotable) == ("pass", True)
    assert all(row.passed for row in verdict.rows)
    assert "**pass**" in verdict.markdown()


def test_without_a_champion_there_is_no_baseline():
    verdict = decide(GOOD, GOOD, None, SHIPPED, simulated=False)
    assert verdict.verdict == "no baseline"
    open_rows = [row for row in verdict.rows if row.passed is None]
    assert [row.kind for row in open_rows] == ["min-improvement"] * 2
    assert "| no baseline |" in verdict.markdown()


def test_no_baseline_does_not_hide_a_missed_goal():
    verdict = decide(GOOD | {"p99_ms": 10.1}, GOOD, None, SHIPPED, simulated=False)
    assert (verdict.verdict, verdict.promotable) == ("fail", False)
    assert "answers within 10 ms" in verdict.reason
    assert "| FAIL |" in verdict.markdown()


@pytest.mark.parametrize("champion", [GOOD, None])
def test_simulated_data_are_never_promotable(champion):
    verdict = decide(GOOD, GOOD, champion, SHIPPED, simulated=True)
    assert not verdict.promotable
    assert "simulated" in verdict.reason


def test_without_goals_nothing_passes():
    with pytest.raises(GateError, match="no goals"):
        decide(GOOD, GOOD, GOOD, Goals.model_construct(goals=()), simulated=False)


@pytest.mark.parametrize("goal", SHIPPED.goals, ids=lambda goal: goal.name)
@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf, "absent"])
@pytest.mark.parametrize("champion", [GOOD, None])
def test_a_missing_metric_never_passes(goal, bad, champion):
    candidate = GOOD | {goal.metric: bad}
    if bad == "absent":
        del candidate[goal.metric]
    verdict = decide(candidate, GOOD, champion, SHIPPED, simulated=False)
    assert verdict.verdict == "fail"
    assert goal.name in verdict.reason


@pytest.mark.parametrize("bad", [None, math.nan])
def test_a_missing_number_to_compare_with_never_passes(bad):
    assert decide(GOOD, GOOD | {"auc": bad}, GOOD, SHIPPED, simulated=False).verdict == "fail"
    assert decide(GOOD, GOOD, GOOD | {"auc": bad}, SHIPPED, simulated=False).verdict == "fail"


@pytest.mark.parametrize(
    ("entry", "value", "passed"),
    [
        ({"kind": "threshold", "metric": "p99_ms", "maximum": 3.0}, 3.0, True),
        ({"kind": "threshold", "metric": "p99_ms", "maximum": 3.0}, 3.01, False),
        ({"kind": "threshold", "metric": "auc", "minimum": 0.7}, 0.7, True),
        ({"kind": "threshold", "metric": "auc", "minimum": 0.7}, 0.69, False),
        (
            {"kind": "max-degradation", "metric": "auc", "limit": 0.25, "unit": "absolute"},
            0.5,
            True,
        ),
        (
            {"kind": "max-degradation", "metric": "auc", "limit": 0.25, "unit": "absolute"},
            0.4,
            False,
        ),
        (
            {"kind": "max-degradation", "metric": "auc", "limit": 10.0, "unit": "percent"},
            0.68,
            True,
        ),
        (
            {"kind": "max-degradation", "metric": "auc", "limit": 10.0, "unit": "percent"},
            0.67,
            False,
        ),
        (
            {"kind": "max-degradation", "metric": "p99_ms", "limit": 1.0, "unit": "absolute"},
            4.0,
            True,
        ),
        (
            {"kind": "max-degradation", "metric": "p99_ms", "limit": 1.0, "unit": "absolute"},
            4.1,
            False,
        ),
        (
            {"kind": "min-improvement", "metric": "auc", "limit": 0.0, "unit": "absolute"},
            0.75,
            True,
        ),
        (
            {"kind": "min-improvement", "metric": "auc", "limit": 0.0, "unit": "absolute"},
            0.74,
            False,
        ),
        (
            {"kind": "min-improvement", "metric": "auc", "limit": -0.25, "unit": "absolute"},
            0.5,
            True,
        ),
        (
            {"kind": "min-improvement", "metric": "p99_ms", "limit": 50.0, "unit": "percent"},
            1.5,
            True,
        ),
        (
            {"kind": "min-improvement", "metric": "p99_ms", "limit": 50.0, "unit": "percent"},
            1.6,
            False,
        ),
    ],
)
def test_each_kind_judges_in_the_metrics_own_direction(entry, value, passed):
    row = judge({"name": "goal", **entry}, GOOD | {entry["metric"]: value})
    assert row.passed is passed
    assert (row.margin >= 0) is passed
    assert row.reason == ("met" if passed else "missed")


def test_a_percentage_of_zero_never_passes():
    entry = {
        "name": "a",
        "kind": "max-degradation",
        "metric": "flips",
        "limit": 1.0,
        "unit": "percent",
    }
    row = judge(entry, GOOD)
    assert row.passed is False
    assert "no percentage" in row.reason


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), st.none() | st.floats(), max_size=16))
def test_only_finite_complete_numbers_pass(candidate):
    verdict = decide(candidate, GOOD, GOOD, SHIPPED, simulated=False)
    needed = [candidate.get(goal.metric) for goal in SHIPPED.goals]
    sound = all(value is not None and math.isfinite(value) for value in needed)
    assert sound or verdict.verdict == "fail"


def spread(value, width) -> Evidence:
    """Evidence of an AUC whose resamples spread by `width` to either side."""
    draws = Draws(np.linspace(value - width, value + width, 1001))
    return Evidence(GOOD | {"auc": value}, {"auc": draws})


def judge_sure(entry, candidate, reference):
    asked = goals({"name": "goal", "metric": "auc", "confidence": 0.9, **entry})
    return decide_on(candidate, reference, None, asked, simulated=False).rows[0]


@pytest.mark.parametrize("width", [0.0, 0.01, 0.1])
def test_a_goal_with_confidence_judges_the_intervals_worse_bound(width):
    entry = {"kind": "threshold", "minimum": 0.7}
    row = judge_sure(entry, spread(0.75, width), sure(GOOD))
    assert row.interval.low == pytest.approx(0.75 - 0.9 * width)
    assert row.margin == pytest.approx(0.05 - 0.9 * width)
    assert row.passed is (width < 0.05)


@pytest.mark.parametrize("width", [0.001, 0.1])
def test_resamples_are_compared_pair_by_pair(width):
    entry = {"kind": "max-degradation", "limit": 1.0, "unit": "percent"}
    # both vary together, so the difference is certain although each value is not
    row = judge_sure(entry, spread(0.75, width), spread(0.75, width))
    assert (row.interval.low, row.interval.high, row.passed) == (0.0, 0.0, True)
    against = judge_sure(entry, spread(0.75, width), spread(0.75, -width))
    assert against.passed is (width < 0.01)


def test_few_pieces_widen_the_interval():
    few, many = (
        Evidence(GOOD, {"auc": Draws(spread(0.75, 0.1).draws["auc"].values_S, clusters)})
        for clusters in (3, 1000)
    )
    entry = {"kind": "threshold", "minimum": 0.7}
    assert judge_sure(entry, few, few).interval.low < judge_sure(entry, many, many).interval.low


@pytest.mark.parametrize("draws", [{}, {"auc": Draws(np.where(np.arange(10) == 3, np.nan, 0.8))}])
@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "threshold", "minimum": 0.1},
        {"kind": "max-degradation", "limit": 0.5, "unit": "absolute"},
    ],
)
def test_without_an_interval_a_goal_with_confidence_never_passes(entry, draws):
    row = judge_sure(entry, Evidence(GOOD, draws), sure(GOOD))
    assert row.passed is False
    assert row.reason == "no interval can be computed"
