import pytest

from model_code.benchmark.goals import (
    MINIMUM_EVENTS,
    MaxDegradation,
    MinImprovement,
    Threshold,
    load_goals,
)
from model_code.errors import GateError

WORSE = "goals:\n  - {name: a, metric: auc, kind: max-degradation, limit: 1.0, unit: absolute}\n"
OVER = WORSE.replace("max-degradation", "min-improvement, over: boosting")
ONE = "goals:\n  - {name: a, metric: auc, kind: threshold, minimum: 0.5}\n"


def test_the_shipped_goals_cover_what_a_release_needs():
    goals = load_goals().goals
    found = {(goal.metric, goal.kind) for goal in goals}
    assert found >= {
        ("accuracy", "max-degradation"),
        ("auc", "max-degradation"),
        ("max_abs_dp", "threshold"),
        ("non_finite", "threshold"),
        ("accepted_non_finite", "threshold"),
        ("p99_ms", "threshold"),
        ("auc", "min-improvement"),
        ("p50_ms", "min-improvement"),
        ("batch_dependence", "threshold"),
    }
    compared = [goal for goal in goals if goal.kind != "threshold"]
    assert all(goal.confidence == 0.95 for goal in compared)
    p99 = next(goal for goal in goals if goal.metric == "p99_ms")
    assert isinstance(p99, Threshold)
    assert p99.maximum == 10.0


def test_each_kind_is_read(tmp_path):
    path = tmp_path / "goals.yaml"
    path.write_text(
        ONE
        + "  - {name: b, metric: auc, kind: max-degradation, limit: 1.0, unit: percent}\n"
        + "  - {name: c, metric: p99_ms, kind: min-improvement, limit: -1.0, unit: absolute}\n"
    )
    kinds = [type(goal) for goal in load_goals(path).goals]
    assert kinds == [Threshold, MaxDegradation, MinImprovement]


@pytest.mark.parametrize("text", ["", "goals:\n", "goals: []\n", "other: 1\n", "- a\n"])
def test_no_goals_is_an_error(tmp_path, text):
    path = tmp_path / "goals.yaml"
    path.write_text(text)
    with pytest.raises(GateError, match="no goals"):
        load_goals(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goals: 5\n", "not a list"),
        ("goals: {a: b}\n", "malformed"),
        (ONE.replace("auc", "aucc"), "metric"),
        (ONE.replace("threshold", "treshold"), "kind|treshold"),
        (ONE.replace("minimum: 0.5", "minimun: 0.5"), "minimun|minimum"),
        (ONE.replace("minimum: 0.5", "minimum: .nan"), "finite"),
        (ONE.replace("minimum: 0.5", "minimum: '0.5'"), "minimum"),
        (ONE.replace("minimum: 0.5", "minimum: 0.5, maximum: 1.0"), "either minimum or maximum"),
        (ONE.replace("minimum: 0.5", "note: none"), "note|either"),
        (ONE + ONE.partition("\n")[2], "same name"),
        (ONE + "extra: 1\n", "extra"),
        (ONE.replace("minimum: 0.5", "minimum: 0.5, confidence: 95"), "confidence"),
        (ONE.replace("auc", "max_abs_dp, confidence: 0.95"), "max_abs_dp has no interval"),
        (WORSE.replace("1.0", "-1.0"), "limit"),
        (WORSE.replace("absolute", "points"), "unit"),
        (OVER.replace("auc", "p50_ms"), "gradient boosting has no p50_ms"),
        (OVER.replace("boosting", "boostin"), "over"),
        (ONE + "minimum_events: 0\n", "minimum_events"),
        (ONE + "minimum_events: many\n", "minimum_events"),
    ],
)
def test_a_malformed_goal_is_an_error_that_names_it(tmp_path, text, message):
    path = tmp_path / "goals.yaml"
    path.write_text(text)
    with pytest.raises(GateError, match=message) as caught:
        load_goals(path)
    assert str(path) in str(caught.value)


def test_the_minimum_of_events_can_be_set(tmp_path):
    path = tmp_path / "goals.yaml"
    path.write_text(ONE)
    assert load_goals(path).minimum_events == load_goals().minimum_events == MINIMUM_EVENTS
    path.write_text(ONE + "minimum_events: 5\n")
    assert load_goals(path).minimum_events == 5


def test_every_shipped_comparison_with_boosting_is_on_by_default():
    found = [
        (goal.metric, goal.limit, goal.confidence)
        for goal in load_goals().goals
        if isinstance(goal, MinImprovement) and goal.over == "boosting"
    ]
    assert found == [("auc", -0.003, 0.95), ("log_loss", -0.003, 0.95)]


def test_unreadable_goals_are_an_error(tmp_path):
    with pytest.raises(GateError, match="cannot be read"):
        load_goals(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("goals: [")
    with pytest.raises(GateError, match="cannot be read"):
        load_goals(broken)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("metric: auc, kind: max-degradation, limit: 1.0, unit: absolute, tolerance_ms: 1.0",
         "auc is not a latency"),
        ("metric: p50_ms, kind: min-improvement, limit: 1.0, unit: percent, tolerance_ms: 1.0",
         "limit asks for a gain"),
        ("metric: p50_ms, kind: min-improvement, limit: 0.0, unit: percent, tolerance_ms: 0.0",
         "greater than 0"),
        ("metric: p50_ms, kind: min-improvement, over: anchor, limit: 0.0, unit: percent",
         "only its answers are compared"),
    ],
)  # fmt: skip
def test_what_a_comparison_cannot_have_is_refused(tmp_path, goal, message):
    path = tmp_path / "goals.yaml"
    path.write_text(f"goals:\n  - {{name: a, {goal}}}\n")
    with pytest.raises(GateError, match=message):
        load_goals(path)


def test_the_shipped_goals_stop_slow_erosion_and_ignore_hundredths_of_a_millisecond():
    compared = [goal for goal in load_goals().goals if isinstance(goal, MinImprovement)]
    assert {(goal.metric, goal.limit) for goal in compared if goal.over == "anchor"} == {
        ("auc", -0.01)
    }
    assert {goal.tolerance_ms for goal in compared if goal.metric == "p50_ms"} == {0.02}


def test_engines_share_the_confidence():
    found = load_goals()
    shared = found.shared_by(5)
    levels = {goal.confidence for goal in shared.goals if goal.confidence is not None}
    assert [round(level, 9) for level in levels] == [0.99]
    assert [goal.name for goal in shared.goals] == [goal.name for goal in found.goals]
    assert found.shared_by(1) == found
