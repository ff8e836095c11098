import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.benchmark.gate import Verdict, choose, decide
from model_code.benchmark.goals import Goals, load_goals
from model_code.benchmark.regression import Regression
from model_code.benchmark.result import BenchmarkResult, EngineRow
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
}
SHIPPED = load_goals()


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
    assert [row.kind for row in open_rows] == ["min-improvement"]
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


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), st.none() | st.floats(), max_size=13))
def test_only_finite_complete_numbers_pass(candidate):
    verdict = decide(candidate, GOOD, GOOD, SHIPPED, simulated=False)
    needed = [candidate.get(goal.metric) for goal in SHIPPED.goals]
    sound = all(value is not None and math.isfinite(value) for value in needed)
    assert sound or verdict.verdict == "fail"


def result(**p50) -> BenchmarkResult:
    quality = Regression(**{key: GOOD[key] for key in Regression.model_fields})
    rows = tuple(
        EngineRow(
            engine=name.replace("_", "-"),
            mean_ms=1.0,
            p50_ms=value,
            p90_ms=1.0,
            p99_ms=1.0,
            throughput=1.0,
            quality=quality,
        )
        for name, value in p50.items()
    )
    return BenchmarkResult(
        rows=rows, unavailable={}, windows=1, requests=1, throughput_batch=1, machine={}
    )


def verdict_of(word) -> Verdict:
    return Verdict(verdict=word, promotable=False, reason="", rows=())


def test_the_fastest_servable_engine_that_did_not_fail_is_chosen():
    table = result(torch_fp32=0.1, onnxruntime_fp32=2.0, openvino_fp32=1.0, openvino_bf16=0.5)
    words = {
        "torch-fp32": verdict_of("pass"),
        "onnxruntime-fp32": verdict_of("pass"),
        "openvino-fp32": verdict_of("no baseline"),
        "openvino-bf16": verdict_of("fail"),
    }
    assert choose(table, words) == "openvino-fp32"


def test_nothing_is_chosen_where_all_failed_or_none_was_judged():
    table = result(onnxruntime_fp32=2.0, openvino_fp32=1.0)
    assert choose(table, {"onnxruntime-fp32": verdict_of("fail")}) is None
