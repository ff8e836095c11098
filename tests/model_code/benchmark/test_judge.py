import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.benchmark.goals import RESAMPLED, Goals, load_goals
from model_code.benchmark.judge import NO_OBSTACLES
from model_code.benchmark.judge import decide as decide_on
from model_code.benchmark.verdict import Draws, Events, Evidence, Obstacles, Verdict
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
    "accepted_non_finite": 0,
    "calibration_error": 0.02,
    "slice_flip_fraction": 0.0,
    "batch_dependence": 0.0,
    "average_precision": 0.6,
    "average_precision_lift": 2.0,
    "balanced_accuracy": 0.7,
    "mcc": 0.4,
    "precision": 0.6,
    "recall": 0.6,
    "base_rate": 0.3,
}
MANY = Events(positives=300, negatives=700, days=1)
SHIPPED = load_goals()


def sure(metrics) -> Evidence:
    """Evidence in which every resample equals the value."""
    known = {name for name in RESAMPLED & metrics.keys() if metrics[name] is not None}
    return Evidence(metrics, {name: Draws(np.full(10, metrics[name])) for name in known})


def decide(
    candidate,
    reference,
    champion,
    goals,
    *,
    simulated=False,
    boosting=GOOD,
    events=MANY,
    anchor=GOOD,
    obstacles=NO_OBSTACLES,
) -> Verdict:
    others = [None if found is None else sure(found) for found in (champion, boosting, anchor)]
    return decide_on(
        sure(candidate),
        sure(reference),
        others[0],
        goals,
        simulated=simulated,
        events=events,
        boosting=others[1],
        anchor=others[2],
        obstacles=obstacles,
    )


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
    verdict = decide(GOOD, GOOD, None, SHIPPED, simulated=False, anchor=None)
    assert verdict.verdict == "no baseline"
    open_rows = [row for row in verdict.rows if row.passed is None]
    assert [row.word for row in open_rows] == ["no baseline", "not judged", "no baseline"]
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


def test_a_run_of_an_earlier_version_says_that_nothing_was_planted():
    verdict = decide(GOOD | {"accepted_non_finite": None}, GOOD, GOOD, SHIPPED)
    assert verdict.reason == "missed: NaN and infinity are refused"
    row = next(row for row in verdict.rows if row.passed is False)
    assert "earlier version: measure again" in row.reason


@pytest.mark.parametrize("bad", [None, math.nan])
def test_a_missing_number_to_compare_with_never_passes(bad):
    assert decide(GOOD, GOOD | {"auc": bad}, GOOD, SHIPPED, simulated=False).verdict == "fail"
    assert decide(GOOD, GOOD, GOOD | {"auc": bad}, SHIPPED, simulated=False).verdict == "fail"
    assert decide(GOOD, GOOD, GOOD, SHIPPED, anchor=GOOD | {"auc": bad}).verdict == "fail"


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
    return decide_on(candidate, reference, None, asked, simulated=False, events=MANY).rows[0]


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


BOOSTING = {
    "name": "goal", "kind": "min-improvement", "over": "boosting", "metric": "auc",
    "limit": -0.003, "unit": "absolute",
}  # fmt: skip


@pytest.mark.parametrize(("auc", "passed"), [(0.752, True), (0.754, False)])
def test_gradient_boosting_may_be_ahead_by_the_margin_only(auc, passed):
    verdict = decide(GOOD, GOOD, GOOD, goals(BOOSTING), boosting=GOOD | {"auc": auc})
    (row,) = verdict.rows
    assert (row.passed, row.reference) == (passed, auc)
    assert row.limit == "at most 0.003 worse than gradient boosting"
    assert verdict.verdict == ("pass" if passed else "fail")


def test_log_loss_is_better_if_lower():
    entry = BOOSTING | {"metric": "log_loss"}
    for loss, passed in ((0.498, True), (0.496, False)):
        verdict = decide(GOOD, GOOD, GOOD, goals(entry), boosting=GOOD | {"log_loss": loss})
        assert verdict.rows[0].passed is passed


def test_without_gradient_boosting_its_goals_never_pass():
    verdict = decide(GOOD, GOOD, GOOD, SHIPPED, boosting=None)
    missed = [row for row in verdict.rows if row.passed is False]
    assert [row.metric for row in missed] == ["auc", "log_loss"]
    assert verdict.verdict == "fail"
    for row in missed:
        assert "predictions are not in this run: measure again" in row.reason


def test_a_model_no_better_than_the_base_rate_fails():
    verdict = decide(GOOD | {"average_precision_lift": 1.04}, GOOD, GOOD, SHIPPED)
    assert verdict.reason == "missed: better than the base rate"


def test_the_smallest_visible_difference_is_half_the_paired_interval():
    narrow = Evidence(GOOD, {"auc": Draws(np.full(1001, 0.75))})
    verdict = decide_on(
        spread(0.75, 0.1), sure(GOOD), None, goals(BOOSTING), simulated=False, events=MANY,
        boosting=narrow,
    )  # fmt: skip
    assert verdict.auc_resolution == pytest.approx(0.095)
    assert "could have been seen: 0.0950" in verdict.markdown()
    same = decide_on(
        spread(0.75, 0.1), sure(GOOD), None, goals(BOOSTING), simulated=False, events=MANY,
        boosting=spread(0.75, 0.1),
    )  # fmt: skip
    assert same.auc_resolution == 0.0  # both vary together


FEW = Events(positives=12, negatives=100_000, days=2)


def test_with_too_few_events_only_numbers_without_labels_are_judged():
    verdict = decide(GOOD, GOOD, GOOD, SHIPPED, events=FEW)
    assert (verdict.verdict, verdict.promotable, verdict.accepted) == (
        "too few events", False, False,
    )  # fmt: skip
    assert "12 positives and 100000 negatives" in verdict.reason
    assert "34 days like this would be enough" in verdict.reason  # 200 / (12 / 2)
    judged = {row.metric for row in verdict.rows if row.passed is not None}
    assert judged == {
        "non_finite", "accepted_non_finite", "max_abs_dp", "batch_dependence", "p99_ms", "p50_ms",
    }  # fmt: skip
    assert all("12 positives" in row.reason for row in verdict.rows if row.passed is None)
    assert "| too few events |" in verdict.markdown()


@pytest.mark.parametrize("bad", [{"p99_ms": 11.0}, {"non_finite": 1}, {"accepted_non_finite": 1}])
def test_a_miss_that_needs_no_labels_is_still_a_fail(bad):
    verdict = decide(GOOD | bad, GOOD, GOOD, SHIPPED, events=FEW)
    assert verdict.verdict == "fail"
    assert "12 positives" in verdict.reason


def test_bad_ranks_with_too_few_events_are_no_fail():
    assert decide(GOOD | {"auc": 0.1}, GOOD, GOOD, SHIPPED, events=FEW).verdict == "too few events"


@pytest.mark.parametrize(
    ("events", "few"),
    [
        (Events(200, 200, 1), False),
        (Events(199, 5000, 1), True),
        (Events(5000, 199, 1), True),
    ],
)
def test_both_classes_need_200_windows(events, few):
    assert bool(events.too_few(200)) is few
    verdict = decide(GOOD, GOOD, GOOD, SHIPPED, events=events)
    assert (verdict.verdict == "too few events") is few


def test_the_minimum_is_the_goals():
    lowered = SHIPPED.model_copy(update={"minimum_events": 12})
    assert decide(GOOD, GOOD, GOOD, lowered, events=FEW).verdict == "pass"
    fast = goals({"name": "a", "metric": "p99_ms", "kind": "threshold", "maximum": 10.0})
    assert decide(GOOD, GOOD, GOOD, fast, events=FEW).verdict == "pass", "needs no label"


def test_without_any_event_no_number_of_days_is_enough():
    assert "no number of days" in Events(0, 900, 1).too_few(200)


LATENCY_ONLY = Obstacles(latency="its ONNX graph was measured")
OTHER_SPLIT = Obstacles(champion="the split differs")
OTHER_LABEL = Obstacles(champion="the label differs", answers="the label differs")


@pytest.mark.parametrize(
    ("obstacles", "unjudged"),
    [
        (OTHER_SPLIT, set()),
        (OTHER_LABEL, {"AUC no worse than the champion"}),
        (LATENCY_ONLY, {"no slower than the champion"}),
    ],
)
def test_a_champion_that_cannot_be_compared_with_never_gives_a_pass(obstacles, unjudged):
    verdict = decide(GOOD, GOOD, GOOD, SHIPPED, obstacles=obstacles)
    assert (verdict.verdict, verdict.promotable, verdict.accepted) == (
        "not comparable", False, True,
    )  # fmt: skip
    assert verdict.reason == (obstacles.champion or obstacles.latency)
    assert {row.name for row in verdict.rows if row.word == "not comparable"} == unjudged
    assert ("| not comparable |" in verdict.markdown()) is bool(unjudged)


def test_the_reason_names_what_the_goals_ask_for():
    both = Obstacles(champion="the label differs", answers="the label differs", latency="its graph")
    auc = {"name": "a", "metric": "auc", "kind": "min-improvement", "limit": 0.0,
           "unit": "absolute"}  # fmt: skip
    assert decide(GOOD, GOOD, GOOD, goals(auc), obstacles=both).reason == "the label differs"
    assert (
        decide(GOOD, GOOD, GOOD, SHIPPED, obstacles=both).reason == "the label differs; its graph"
    )


def test_what_can_be_judged_still_fails():
    worse = GOOD | {"auc": 0.7}
    verdict = decide(
        worse, worse, GOOD, SHIPPED, boosting=worse, anchor=worse, obstacles=OTHER_SPLIT
    )
    assert verdict.reason == "missed: AUC no worse than the champion"
    slow = decide(GOOD | {"p50_ms": 3.0}, GOOD, GOOD, SHIPPED, obstacles=OTHER_LABEL)
    assert slow.reason == "missed: no slower than the champion"
    missing = decide(GOOD | {"auc": None}, GOOD, GOOD, SHIPPED, obstacles=OTHER_LABEL)
    assert missing.verdict == "fail"


def test_a_champion_without_figures_is_not_a_first_model():
    gone = Obstacles(champion="it failed", answers="it failed", latency="it failed")
    verdict = decide(GOOD, GOOD, None, SHIPPED, obstacles=gone)
    assert (verdict.verdict, verdict.reason) == ("not comparable", "it failed")


def test_goals_on_answers_alone_pass_beside_a_graph_s_latency():
    auc = {"name": "a", "metric": "auc", "kind": "min-improvement", "limit": 0.0,
           "unit": "absolute"}  # fmt: skip
    assert decide(GOOD, GOOD, GOOD, goals(auc), obstacles=LATENCY_ONLY).verdict == "pass"


def test_slow_erosion_is_stopped_by_the_version_of_many_nights_ago():
    """Each night is 0.009 worse than the one before, which the champion's goal allows."""
    champion = GOOD | {"auc": GOOD["auc"] + 0.009}
    anchor = GOOD | {"auc": GOOD["auc"] + 0.018}
    verdict = decide(GOOD, GOOD, champion, SHIPPED, anchor=anchor)
    assert verdict.reason == "missed: AUC no worse than many nights ago"
    assert decide(GOOD, GOOD, champion, SHIPPED, anchor=champion).verdict == "pass"


@pytest.mark.parametrize(
    ("anchor", "obstacle", "reason"),
    [
        (None, "", "not judged: no version of many nights ago was measured"),
        (None, "no version served that long ago", "not judged: no version served that long ago"),
        (GOOD | {"auc": 0.99}, "the label differs", "not judged: the label differs"),
    ],
)
def test_without_a_version_of_many_nights_ago_its_goal_is_not_judged_and_says_so(
    anchor, obstacle, reason
):
    found = Obstacles(anchor=obstacle)
    verdict = decide(GOOD, GOOD, GOOD, SHIPPED, anchor=anchor, obstacles=found)
    assert (verdict.verdict, verdict.promotable) == ("pass", True)
    name = "AUC no worse than many nights ago"
    assert verdict.reason == f"all other goals are met; not judged: {name}"
    (row,) = [row for row in verdict.rows if row.name == name]
    assert (row.word, row.passed, row.reason) == ("not judged", None, reason)
    assert "| not judged |" in verdict.markdown()


def rounds(median_ms: float, noise: float, seed: int) -> Evidence:
    """Evidence of a latency in 50 rounds with a relative noise."""
    random = np.random.default_rng(seed)
    rounds_P = median_ms * (1 + noise * random.standard_normal(50))
    draws = Draws(np.full(1000, median_ms), 50, rounds_P)
    return Evidence(GOOD | {"p50_ms": median_ms}, {"p50_ms": draws})


SPEED = {
    "name": "speed", "metric": "p50_ms", "kind": "min-improvement", "limit": -3.0,
    "unit": "percent", "confidence": 0.95,
}  # fmt: skip


@pytest.mark.parametrize(
    ("champion_ms", "candidate_ms", "without", "with_tolerance"),
    [
        (0.03, 0.03, False, True),  # noise beside other servers
        (0.03, 0.045, False, True),  # half as slow again: 0.015 ms
        (0.03, 0.06, False, False),
        (2.0, 2.0, False, False),  # the tolerance is nothing to a slow engine
        (2.0, 1.7, True, True),
    ],
)
def test_a_difference_below_the_tolerance_does_not_count(
    champion_ms, candidate_ms, without, with_tolerance
):
    candidate, champion = rounds(candidate_ms, 0.15, 1), rounds(champion_ms, 0.15, 2)
    for entry, passed in ((SPEED, without), (SPEED | {"tolerance_ms": 0.02}, with_tolerance)):
        verdict = decide_on(
            candidate, sure(GOOD), champion, goals(entry), simulated=False, events=MANY
        )
        (row,) = verdict.rows
        assert row.passed is passed, row
        assert row.margin is not None
        assert (row.margin >= 0) is passed
    assert row.limit == "at most 3% or 0.02 ms worse than the champion, confidence 0.95"


def test_a_tolerance_in_the_metric_s_own_unit():
    entry = SPEED | {"limit": 0.0, "unit": "absolute", "tolerance_ms": 0.5}
    del entry["confidence"]
    for ms, passed in ((2.5, True), (2.6, False)):
        row = judge(entry, GOOD | {"p50_ms": ms})
        assert row.passed is passed
    assert row.limit == "at most 0.5 ms worse than the champion"


def test_a_missed_goal_is_told_with_value_and_limit() -> None:
    worse = GOOD | {"max_abs_dp": 0.0234, "auc": 0.7}
    verdict = decide(worse, GOOD, GOOD, SHIPPED)
    assert verdict.verdict == "fail"
    closeness = "probabilities stay close to FP32: 0.0234, limit <= 0.02"
    assert closeness in verdict.missed
    (rank,) = [line for line in verdict.missed if line.startswith("AUC keeps up with FP32")]
    assert rank == (
        "AUC keeps up with FP32: 0.7 against 0.75, interval of the gain -0.05 .. -0.05, "
        "limit at most 0.005 worse than FP32, confidence 0.95"
    )
    unknown = decide(GOOD | {"max_abs_dp": None}, GOOD, GOOD, SHIPPED)
    (line,) = unknown.missed
    assert line.endswith("limit <= 0.02 (the metric is missing or not finite)")
    assert decide(GOOD, GOOD, GOOD, SHIPPED).missed == ()
