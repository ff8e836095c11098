"""The gate on whole runs: evidence drawn from raw numbers, ties, pins."""

import dataclasses
import itertools
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn import metrics as sk

from model_code.benchmark import significance
from model_code.benchmark.gate import Choice, _holm, choose, evidence, judge_run, obstacles, places
from model_code.benchmark.goals import Goals, load_goals
from model_code.benchmark.judge import decide
from model_code.benchmark.reports.report import sheets
from model_code.benchmark.result import BenchmarkRun, Other
from model_code.benchmark.slices import sliced
from model_code.benchmark.verdict import Draws, Events, Evidence, Obstacles, Verdict
from model_code.errors import GateError
from model_code.repository.terms import UNKNOWN, Terms
from model_code.settings import BenchmarkSpec, FeatureSpec, SplitSpec
from tests.support.benchmark import benchmark_run, row_of
from tests.support.rare import Market, market

RANDOM = np.random.default_rng(0)
P = RANDOM.uniform(size=400)
LABEL = (RANDOM.uniform(size=400) < P).astype(np.int8)
AUC = {"name": "auc", "metric": "auc", "kind": "threshold", "minimum": 0.6}
FEW = 100  # events of each class suffice: there are about 200
SURE = Goals.model_validate({"goals": ({**AUC, "confidence": 0.95},), "minimum_events": FEW})
PLAIN = Goals.model_validate({"goals": (AUC,), "minimum_events": FEW})
BOOSTING = {
    "name": "boosting", "metric": "auc", "kind": "min-improvement", "over": "boosting",
    "limit": -0.003, "unit": "absolute", "confidence": 0.95,
}  # fmt: skip
AGAINST = Goals.model_validate({"goals": (BOOSTING,), "minimum_events": FEW})


def run(*, probability=None, more=None, **p50) -> BenchmarkRun:
    """Engines with these medians, their requests within 0.1% of them."""
    names = {name.replace("_", "-"): value for name, value in {"torch_fp32": 9.0, **p50}.items()}
    noise = RANDOM.uniform(0.999, 1.001, 200)
    answers = dict.fromkeys(names, P) | (probability or {})
    return benchmark_run(
        LABEL, answers, {name: p * noise for name, p in names.items()}, **(more or {})
    )


def verdicts(**words) -> dict[str, Verdict]:
    return {
        name.replace("_", "-"): Verdict(verdict=word, promotable=False, reason=word, rows=())
        for name, word in words.items()
    }


def chosen(measured, words, pin=None) -> Choice:
    return choose(measured, verdicts(**words), pin)


def test_every_servable_engine_is_judged():
    measured = run(torch_amp=1.0, onnxruntime_fp32=2.0, openvino_fp32=3.0, champion=2.0)
    found = judge_run(measured, SURE, simulated=False)
    assert list(found) == ["onnxruntime-fp32", "openvino-fp32"]
    assert {verdict.verdict for verdict in found.values()} == {"pass"}
    bounds = found["openvino-fp32"].rows[0].interval
    auc = row_of(measured.result, "openvino-fp32").quality.auc
    assert bounds is not None
    assert auc is not None
    assert bounds.low < auc < bounds.high


def test_without_the_champions_row_there_is_no_baseline():
    found = judge_run(run(onnxruntime_fp32=2.0), PLAIN, simulated=True)
    assert found["onnxruntime-fp32"].verdict == "no baseline"
    assert "simulated" in found["onnxruntime-fp32"].reason


def test_an_engine_with_non_finite_predictions_has_metrics_but_no_intervals():
    broken = np.where(np.arange(400) == 7, np.nan, P)
    measured = run(onnxruntime_fp32=2.0, probability={"onnxruntime-fp32": broken})
    found = evidence(measured, resample=True)["onnxruntime-fp32"]
    assert found.number("non_finite") == 1
    assert "auc" not in found.draws
    assert "p50_ms" in found.draws
    assert judge_run(measured, SURE, simulated=False)["onnxruntime-fp32"].verdict == "fail"


def test_the_verdict_is_the_same_each_time():
    measured = run(onnxruntime_fp32=2.0, champion=2.0)
    first, second = (judge_run(measured, SURE, simulated=False) for _ in range(2))
    assert first == second


def test_without_the_reference_nothing_is_judged():
    measured = run(onnxruntime_fp32=2.0)
    rows = measured.result.rows[1:]
    bare = dataclasses.replace(measured, result=measured.result.model_copy(update={"rows": rows}))
    with pytest.raises(GateError, match="no torch-fp32"):
        judge_run(bare, PLAIN, simulated=False)


def test_the_fastest_engine_that_did_not_fail_is_chosen():
    measured = run(onnxruntime_fp32=2.0, openvino_fp32=1.0, openvino_bf16=0.5)
    words = {"onnxruntime_fp32": "pass", "openvino_fp32": "no baseline", "openvino_bf16": "fail"}
    choice = chosen(measured, words)
    assert (choice.engine, choice.verdict.verdict) == ("openvino-fp32", "no baseline")
    assert "fastest" in choice.reason


@pytest.mark.parametrize("fp32", [0.999, 1.0, 1.015])
def test_of_equally_fast_engines_the_most_exact_is_chosen(fp32):
    measured = run(openvino_bf16=1.0, openvino_fp32=fp32, onnxruntime_fp32=1.1)
    words = dict.fromkeys(("openvino_bf16", "onnxruntime_fp32", "openvino_fp32"), "pass")
    choice = chosen(measured, words)
    assert choice.engine == "openvino-fp32"
    assert "openvino-fp32, openvino-bf16" in choice.reason


@pytest.mark.parametrize("fp32", [0.93, 1.0, 1.09])
def test_indistinguishable_engines_share_a_place_in_table_order(fp32):
    measured = run(openvino_bf16=1.0, openvino_fp32=fp32, onnxruntime_fp32=1.3)
    order = [row.engine for row in measured.result.rows]
    assert order.index("openvino-bf16") < order.index("openvino-fp32")  # as given, for this test
    assert places(measured) == (
        ("openvino-bf16", "openvino-fp32"),
        ("onnxruntime-fp32",),
        ("torch-fp32",),
    )


def test_an_engine_is_compared_with_the_fastest_of_its_place_not_with_its_neighbour():
    measured = run(onnxruntime_fp32=1.0, openvino_fp32=1.08, openvino_bf16=1.16)
    assert places(measured)[:2] == (("onnxruntime-fp32", "openvino-fp32"), ("openvino-bf16",))


def test_fewer_weights_are_less_exact_than_fewer_bits():
    fit = ("openvino-pruned-bf16", "openvino-pruned", "openvino-int8", "openvino-bf16")
    measured = run(**dict.fromkeys((name.replace("-", "_") for name in fit), 1.0))
    expected = ["openvino-bf16", "openvino-int8", "openvino-pruned", "openvino-pruned-bf16"]
    for count, first in enumerate(expected):
        left = [name.replace("-", "_") for name in fit if name not in expected[:count]]
        assert chosen(measured, dict.fromkeys(left, "pass")).engine == first


def test_if_all_failed_the_engine_with_the_fewest_misses_is_shown():
    auc = {"name": "b", "metric": "auc", "kind": "threshold", "minimum": 0.999}
    fast = {"name": "c", "metric": "p50_ms", "kind": "threshold", "maximum": 1.5}
    measured = run(onnxruntime_fp32=2.0, openvino_fp32=1.0)
    asked = Goals.model_validate({"goals": (AUC, auc, fast), "minimum_events": FEW})
    choice = choose(measured, judge_run(measured, asked, simulated=False))
    assert (choice.engine, choice.verdict.verdict) == ("openvino-fp32", "fail")
    assert "every engine failed" in choice.reason


def test_a_pinned_engine_is_chosen_although_another_is_faster():
    measured = run(onnxruntime_fp32=2.0, openvino_fp32=1.0)
    words = {"onnxruntime_fp32": "pass", "openvino_fp32": "pass"}
    choice = chosen(measured, words, pin="onnxruntime-fp32")
    assert (choice.engine, choice.verdict.verdict) == ("onnxruntime-fp32", "pass")


def test_no_other_engine_replaces_a_pinned_one():
    measured = run(onnxruntime_fp32=2.0)
    failed = chosen(
        measured, {"onnxruntime_fp32": "fail", "openvino_fp32": "pass"}, pin="onnxruntime-fp32"
    )
    assert (failed.engine, failed.verdict.verdict) == ("onnxruntime-fp32", "fail")
    absent = chosen(measured, {"onnxruntime_fp32": "pass"}, pin="openvino-bf16")
    assert (absent.verdict.verdict, absent.verdict.promotable) == ("fail", False)
    assert "openvino-bf16 is pinned, but cannot be judged" in absent.reason


def test_nothing_to_choose_from_is_an_error():
    with pytest.raises(GateError, match="can serve"):
        chosen(run(), {})


@pytest.mark.parametrize("pin", ["torch-fp32", "openvino-fp32", "typo"])
def test_only_a_measured_servable_engine_can_be_pinned(pin):
    with pytest.raises(ValidationError, match="pin one of the engines"):
        BenchmarkSpec(engines=("torch-amp", "onnxruntime-fp32"), pin=pin)
    assert BenchmarkSpec(pin="openvino-fp32").pin == "openvino-fp32"


NOISE = 1 / (1 + np.exp(-(np.log(P / (1 - P)) + RANDOM.normal(0, 2, 400))))


@pytest.mark.parametrize(
    ("engine_N", "boosting_N", "passed"), [(P, NOISE, True), (NOISE, P, False), (P, P, True)]
)
def test_engines_are_compared_with_gradient_boosting_on_the_same_draws(
    engine_N, boosting_N, passed
):
    measured = run(
        onnxruntime_fp32=2.0,
        probability={"onnxruntime-fp32": engine_N},
        more={"boosting_N": boosting_N},
    )
    verdict = judge_run(measured, AGAINST, simulated=False)["onnxruntime-fp32"]
    (row,) = verdict.rows
    assert row.passed is passed
    assert row.interval is not None
    assert row.reference == pytest.approx(sk.roc_auc_score(LABEL, boosting_N))
    assert verdict.auc_resolution == pytest.approx((row.interval.high - row.interval.low) / 2)
    if engine_N is boosting_N:
        assert (row.interval.low, row.interval.high) == (0.0, 0.0)


def test_a_run_without_gradient_boosting_says_what_to_do():
    verdict = judge_run(run(onnxruntime_fp32=2.0), AGAINST, simulated=False)["onnxruntime-fp32"]
    assert verdict.verdict == "fail"
    assert "measure again with tickline nightly" in verdict.rows[0].reason


def test_gradient_boosting_is_judged_at_its_own_threshold():
    measured = run(
        onnxruntime_fp32=2.0,
        more={"boosting_N": P / 2, "own_thresholds": {"gradient boosting": 0.25}},
    )
    found = evidence(measured, resample=True)
    assert found["gradient boosting"].number("accuracy") == found["onnxruntime-fp32"].number(
        "accuracy"
    )
    np.testing.assert_allclose(
        found["gradient boosting"].draws["mcc"].values_S,
        found["onnxruntime-fp32"].draws["mcc"].values_S,
    )


def test_all_decisions_of_a_run_use_its_threshold():
    measured = run(onnxruntime_fp32=2.0, more={"threshold": 0.8})
    found = evidence(measured, resample=True)["onnxruntime-fp32"]
    assert found.number("recall") == pytest.approx(sk.recall_score(LABEL, P >= 0.8))
    assert np.mean(found.draws["recall"].values_S) == pytest.approx(
        found.number("recall"), abs=0.02
    )
    moved = run(
        onnxruntime_fp32=2.0,
        probability={"onnxruntime-fp32": np.where((P > 0.8) & (P < 0.85), 0.79, P)},
        more={"threshold": 0.8},
    )
    flips = evidence(moved, resample=True)["onnxruntime-fp32"]
    share = np.mean((P > 0.8) & (P < 0.85))
    assert flips.number("flip_fraction") == pytest.approx(share)
    assert np.mean(flips.draws["flip_fraction"].values_S) == pytest.approx(share, abs=0.02)
    worst = flips.number("slice_flip_fraction")
    assert worst is not None
    assert worst >= share


def test_metrics_that_an_old_run_did_not_store_are_computed_from_its_predictions():
    measured = run(onnxruntime_fp32=2.0)
    rows = tuple(
        row.model_copy(
            update={
                "quality": row.quality.model_copy(
                    update=dict.fromkeys(("base_rate", "average_precision", "mcc"))
                )
            }
        )
        for row in measured.result.rows
    )
    old = dataclasses.replace(measured, result=measured.result.model_copy(update={"rows": rows}))
    for name in ("base_rate", "average_precision", "mcc"):
        expected = evidence(measured, resample=False)["onnxruntime-fp32"].number(name)
        assert expected is not None
        assert evidence(old, resample=False)["onnxruntime-fp32"].number(name) == expected


def test_with_too_few_events_no_engine_is_accepted():
    strict = Goals.model_validate({"goals": (AUC,)})
    measured = run(onnxruntime_fp32=2.0, openvino_fp32=1.0)
    rare = dataclasses.replace(measured, label_N=np.where(np.arange(400) < 390, 0, LABEL))
    found = judge_run(rare, strict, simulated=False)
    assert {verdict.verdict for verdict in found.values()} == {"too few events"}
    choice = choose(rare, found)
    assert choice.verdict.verdict == "too few events"
    assert not choice.verdict.accepted
    assert choice.reason == "no engine could be judged: too few events"
    pinned = choose(rare, found, pin="onnxruntime-fp32")
    assert pinned.reason == "onnxruntime-fp32 is pinned and could not be judged: too few events"


def night(taken: Market) -> BenchmarkRun:
    """The benchmark of one engine and FP32 on these windows, beside gradient boosting."""
    names = ("torch-fp32", "onnxruntime-fp32")
    return benchmark_run(
        taken.label_N,
        dict.fromkeys(names, taken.probability_N),
        dict.fromkeys(names, np.ones(40)),
        boosting_N=taken.boosting_N,
        threshold=0.05,
        windows=taken.context,
    )


def test_a_market_of_rare_opportunities_is_judged_if_sampled_by_class(tmp_path, monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 200)
    whole = market()
    goals = load_goals()
    evenly, by_class = (
        judge_run(night(taken), goals, simulated=False)["onnxruntime-fp32"]
        for taken in (whole.evenly(), whole.by_class())
    )
    assert evenly.verdict == "too few events"
    assert by_class.verdict == "no baseline", by_class.reason
    named = {row.name: row for row in by_class.rows}
    against = named["AUC no worse than gradient boosting"]
    assert against.passed is True
    assert against.reference == pytest.approx(
        sk.roc_auc_score(whole.label_N, whole.boosting_N), abs=0.01
    )
    loss = named["log loss no worse than gradient boosting"]
    assert loss.value == pytest.approx(sk.log_loss(whole.label_N, whole.probability_N), rel=0.05)
    assert loss.reference == pytest.approx(sk.log_loss(whole.label_N, whole.boosting_N), rel=0.05)
    lift = named["better than the base rate"].value
    on_all = sk.average_precision_score(whole.label_N, whole.probability_N) / whole.label_N.mean()
    assert lift == pytest.approx(on_all, rel=0.3)

    night(whole.by_class()).save(tmp_path)
    again = BenchmarkRun.load(tmp_path)
    assert list(again.probability_N) == ["torch-fp32", "onnxruntime-fp32"]
    np.testing.assert_array_equal(again.context.weight_N, whole.by_class().weight_N)
    (note,) = (sheet.note for sheet in sheets(again.result) if sheet.title == "Predictions")
    assert "with an opportunity, " in note
    assert "without, weighted" in note


def test_slices_are_of_all_windows_too():
    whole = market()
    taken = whole.by_class()
    for found, expected in itertools.zip_longest(
        *(
            sliced(some.context, some.label_N, some.probability_N, some.boosting_N, (0.05, 0.05))
            for some in (taken, whole)
        )
    ):
        assert (found.dimension, found.name) == (expected.dimension, expected.name)
        assert found.accuracy == pytest.approx(expected.accuracy, abs=0.02)
        assert found.flip_fraction == pytest.approx(expected.flip_fraction, abs=0.02)
        if expected.dimension != "volatility" or expected.name == "4th quartile":
            assert found.auc == pytest.approx(expected.auc, abs=0.05)


TERMS = Terms.of(FeatureSpec(), SplitSpec())
OTHER_LABEL = Terms.of(FeatureSpec(horizon_ms=250.0), SplitSpec())
OTHER_SET = Terms.of(FeatureSpec(feature_set="solo"), SplitSpec())
NO_WORSE = {
    "name": "champion", "metric": "auc", "kind": "min-improvement", "limit": -0.01,
    "unit": "absolute", "confidence": 0.95,
}  # fmt: skip
NOT_OLDER = NO_WORSE | {"name": "anchor", "over": "anchor"}
SPEED = {
    "name": "speed", "metric": "p50_ms", "kind": "min-improvement", "limit": -3.0,
    "unit": "percent",
}  # fmt: skip
VERSIONS = Goals.model_validate({"goals": (NO_WORSE, NOT_OLDER, SPEED), "minimum_events": FEW})


def versions(measured, *, champion, anchor=None, same_engine=True, without=(), **more):
    """The run with what it says of champion and anchor; `without`: rows that failed."""
    rows = tuple(
        row.model_copy(update={"facts": row.facts.model_copy(update={"same_engine": same_engine})})
        if row.engine == "champion"
        else row
        for row in measured.result.rows
        if row.engine not in without
    )
    known = {
        "rows": rows,
        "terms": TERMS,
        "champion": champion,
        "anchor": anchor,
        "unavailable": dict.fromkeys(without, "failed: load: it is gone"),
    }
    return dataclasses.replace(measured, result=measured.result.model_copy(update=known | more))


def verdict_of(measured) -> Verdict:
    return judge_run(measured, VERSIONS, simulated=False)["onnxruntime-fp32"]


CHAMPION = Other(version=4, terms=TERMS)
ANCHOR = Other(version=2, terms=TERMS)


def with_versions(**more):
    return versions(run(onnxruntime_fp32=2.0, champion=2.0, anchor=2.0), **more)


@pytest.mark.parametrize(
    ("champion", "unjudged", "why"),
    [
        (CHAMPION, set(), None),
        (Other(version=4, terms=OTHER_SET), set(), "feature_set paired instead of solo"),
        (Other(version=4, terms=OTHER_LABEL), {"champion"}, "horizon_ms 100 instead of 250"),
        (Other(version=4, terms=None), {"champion"}, UNKNOWN),
    ],
)
def test_only_a_champion_of_the_same_terms_gives_a_pass(champion, unjudged, why):
    verdict = verdict_of(with_versions(champion=champion, anchor=ANCHOR))
    assert verdict.verdict == ("pass" if why is None else "not comparable")
    assert verdict.promotable is (why is None)
    assert {row.name for row in verdict.rows if row.passed is None} == unjudged
    if why is not None:
        assert verdict.reason == f"the champion, version 4, is another: {why}"


def test_a_champion_measured_through_its_graph_has_no_comparable_latency():
    verdict = verdict_of(with_versions(champion=CHAMPION, anchor=ANCHOR, same_engine=False))
    assert verdict.verdict == "not comparable"
    assert "latency is of its ONNX graph" in verdict.reason
    assert {row.name for row in verdict.rows if row.word == "not comparable"} == {"speed"}


def test_a_champion_that_failed_is_no_missing_champion():
    verdict = verdict_of(with_versions(champion=CHAMPION, anchor=ANCHOR, without=("champion",)))
    assert verdict.verdict == "not comparable"
    assert verdict.reason == ("the champion, version 4, has no figures: failed: load: it is gone")


@pytest.mark.parametrize(
    ("anchor", "more", "why"),
    [
        (None, {"no_anchor": "no promotion is so old"}, "no promotion is so old"),
        (None, {}, "no version of many nights ago was measured"),
        (ANCHOR, {"without": ("anchor",)}, "version 2, of many nights ago, has no figures: failed"),
        (Other(version=2, terms=OTHER_LABEL), {}, "is another: horizon_ms 100 instead of 250"),
        (Other(version=2), {}, UNKNOWN),
        (Other(version=2, terms=OTHER_SET), {}, None),
    ],
)
def test_the_goal_of_many_nights_ago_is_judged_or_says_why_not(anchor, more, why):
    verdict = verdict_of(with_versions(champion=CHAMPION, anchor=anchor, **more))
    assert verdict.verdict == "pass"
    row = verdict.rows[1]
    if why is None:
        assert row.passed is True
    else:
        assert (row.passed, row.word) == (None, "not judged")
        assert why in row.reason


def test_a_champion_that_has_served_all_the_time_is_the_anchor_too():
    measured = run(
        onnxruntime_fp32=2.0, champion=2.0, probability={"champion": np.where(LABEL, 0.9, 0.1)}
    )
    found = versions(measured, champion=CHAMPION, anchor=CHAMPION)
    assert obstacles(found.result) == Obstacles()
    verdict = verdict_of(found)
    assert [row.reference for row in verdict.rows[:2]] == [1.0, 1.0]
    assert verdict.reason == "missed: champion, anchor"


def test_a_run_of_an_earlier_version_is_judged_as_it_was(tmp_path):
    measured = run(onnxruntime_fp32=2.0, champion=2.0)
    measured.save(tmp_path)
    path = tmp_path / "benchmark.json"
    values = json.loads(path.read_text())
    for name in ("terms", "champion", "anchor", "no_anchor"):
        del values[name]
    for row in values["rows"]:
        del row["facts"]["same_engine"]
    path.write_text(json.dumps(values))
    latencies = tmp_path / "latencies.parquet"
    pl.read_parquet(latencies).drop("repeat").write_parquet(latencies)
    old = BenchmarkRun.load(tmp_path)
    assert old.repeat_R is None
    assert old.latency_ms_R.keys() == measured.latency_ms_R.keys()
    verdict = verdict_of(old)
    assert verdict.verdict == "pass"
    assert verdict.rows[1].word == "not judged"
    assert choose(old, {"onnxruntime-fp32": verdict}).engine == "onnxruntime-fp32"


@given(st.lists(st.floats(0.0, 0.2), min_size=1, max_size=12))
def test_engines_are_accepted_as_holm_s_procedure_rejects(chances):
    level = 0.05
    by_name = {f"engine {index}": chance for index, chance in enumerate(chances)}

    def judge(name: str, family: int) -> Verdict:
        word = "pass" if by_name[name] <= level / family else "fail"
        return verdicts(**{name: word})[name]

    expected, left = set(), len(by_name)
    for name in sorted(by_name, key=lambda one: by_name[one]):  # the textbook's step-down
        if by_name[name] > level / left:
            break
        expected.add(name)
        left -= 1
    found = _holm(list(by_name), judge)
    assert list(found) == list(by_name)
    assert {name for name, verdict in found.items() if verdict.accepted} == expected


def test_the_choice_among_many_bad_engines_is_seldom_wrong():
    """Ten engines exactly at the limit: each alone would pass wrongly once in forty times."""
    goals = Goals.model_validate({"goals": ({**AUC, "confidence": 0.95},), "minimum_events": 1})
    spread_S = np.sort(np.random.default_rng(1).standard_normal(1000)) * 0.01
    random = np.random.default_rng(2)
    wrong = {"alone": 0, "together": 0}
    for _ in range(200):
        found = {
            f"engine {index}": Evidence({"auc": value}, {"auc": Draws(value + spread_S)})
            for index, value in enumerate(0.6 + 0.01 * random.standard_normal(10))
        }

        def judge(name: str, family: int, found: dict[str, Evidence] = found) -> Verdict:
            return decide(
                found[name], found[name], None, goals, simulated=False,
                events=Events(9, 9, 1), family=family,
            )  # fmt: skip

        wrong["alone"] += any(judge(name, 1).accepted for name in found)
        wrong["together"] += any(verdict.accepted for verdict in _holm(list(found), judge).values())
    assert wrong["alone"] > 30  # 1 - 0.975 ** 10 is 22%
    assert wrong["together"] <= 10  # 2.5%, 5 of 200


def test_the_levels_are_those_of_the_engines_left_and_a_pinned_one_is_alone():
    names = ("onnxruntime_fp32", "openvino_fp32", "openvino_bf16", "openvino_int8")
    measured = run(
        **dict.fromkeys(names, 2.0), probability={"openvino-int8": RANDOM.uniform(size=400)}
    )
    found = judge_run(measured, SURE, simulated=False)
    limits = {name: verdict.rows[0].limit for name, verdict in found.items()}
    assert limits["onnxruntime-fp32"] == ">= 0.6, confidence 0.9875"  # one of four
    assert limits["openvino-int8"] == ">= 0.6, confidence 0.95"  # the last one left
    assert found["openvino-int8"].verdict == "fail"
    assert "4 engines share the confidence" in found["onnxruntime-fp32"].markdown()
    pinned = judge_run(measured, SURE, simulated=False, pin="openvino-fp32")
    assert {verdict.family for verdict in pinned.values()} == {1}
    assert "share the confidence" not in pinned["openvino-fp32"].markdown()


def test_one_disturbed_measurement_does_not_decide_which_engine_is_fastest():
    """Another process takes a third of the requests of the faster engine: one repetition."""
    noise = RANDOM.uniform(0.999, 1.001, 300)
    disturbed = np.where(np.arange(300) < 100, 30.0, 1.0) * noise
    latency = {
        "torch-fp32": 9 * noise, "openvino-fp32": disturbed, "onnxruntime-fp32": 1.1 * noise,
    }  # fmt: skip
    answers = dict.fromkeys(latency, P)
    words = {"openvino_fp32": "pass", "onnxruntime_fp32": "pass"}
    once, repeated = (benchmark_run(LABEL, answers, latency, repeats=count) for count in (1, 3))
    assert choose(once, verdicts(**words)).engine == "onnxruntime-fp32"  # one run: a tie
    assert choose(repeated, verdicts(**words)).engine == "openvino-fp32"
    assert repeated.repeated_p50_ms("openvino-fp32") == pytest.approx(1.0, abs=0.01)
