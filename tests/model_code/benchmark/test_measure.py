import dataclasses
import itertools
import json

import numpy as np
import pytest

from model_code.benchmark import measure, timing
from model_code.benchmark.measure import also, benchmark
from model_code.benchmark.result import BenchmarkRun, EngineFacts, LoadRow, Served
from model_code.benchmark.slices import WindowContext
from model_code.engines.protocol import check_windows
from model_code.errors import EngineError, StorageError
from model_code.settings import BenchmarkSpec
from tests.support.benchmark import row_of
from tests.support.engines import Answers, Fails

COUNT = 150
FACT = EngineFacts(note="serves a")
X = np.random.default_rng(0).normal(size=(COUNT, 64, 16)).astype(np.float32)
LABEL = (X[:, -1, 0] > 0).astype(np.int8)
SPEC = BenchmarkSpec(
    warmup=2,
    requests=6,
    rounds=3,
    batches=(1, 32),
    throughput_rounds=2,
    open_loop_hz=1000,
    open_loop_requests=6,
)
CONTEXT = WindowContext(
    timestamp_ns_N=np.arange(COUNT, dtype=np.int64) * 10**9,
    symbol_N=np.array(["A", "B"]).repeat(COUNT // 2),
    spread_N=np.linspace(1, 2, COUNT),
    volatility_N=np.linspace(2, 1, COUNT),
)


@pytest.fixture(autouse=True)
def _peak(monkeypatch):
    """A machine of 100 GFLOP/s; measuring this machine has its own test."""
    monkeypatch.setattr(measure, "ceilings", lambda _: {"cpu fp32": 1e11})
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)


Diary = list[tuple[str, int]]  # (engine, number of windows predicted)


class Linear:
    """Predicts from the last row's first feature and records its calls."""

    def __init__(self, name, diary, scale=1.0, poison=False):
        self.name, self.diary, self.scale, self.poison = name, diary, scale, poison

    def predict(self, x_BTF):
        check_windows(x_BTF)
        self.diary.append((self.name, len(x_BTF)))
        logit = self.scale * x_BTF[:, -1, 0]
        logits = np.stack([np.zeros_like(logit), logit], axis=1)
        if self.poison and len(x_BTF) > 1:
            logits[0] = np.inf
        return logits


def measured(predictors, label=LABEL, **more) -> BenchmarkRun:
    return benchmark(predictors, lambda a, b: X[a:b], label, CONTEXT, SPEC, **more)


def run(diary: Diary | None = None, **others) -> BenchmarkRun:
    diary = [] if diary is None else diary
    predictors = {"torch-fp32": Linear("torch-fp32", diary)}
    predictors |= {name: Linear(name, diary, **how) for name, how in others.items()}
    return measured(predictors, facts={"torch-fp32": EngineFacts(flops=10**8, size_mib=4.5)})


def test_every_window_is_predicted_once_in_batches_of_64():
    diary: Diary = []
    found = run(diary)
    assert diary[:3] == [("torch-fp32", 64), ("torch-fp32", 64), ("torch-fp32", 22)]
    assert found.result.windows == COUNT
    expected = 1 / (1 + np.exp(-X[:, -1, 0].astype(float)))
    np.testing.assert_allclose(found.probability_N["torch-fp32"], expected, rtol=1e-6)
    assert found.result.rows[0].quality.auc == 1.0


def test_engines_take_turns_in_a_rotating_order():
    diary: Diary = []
    predictors = {name: Linear(name, diary) for name in ("torch-fp32", "a", "b")}
    once = SPEC.model_copy(update={"repeats": 1})
    benchmark(predictors, lambda a, b: X[a:b], LABEL, CONTEXT, once)
    answers = 3 * 3  # batches of every engine
    warm = 3 * (SPEC.warmup + len(SPEC.batches))
    rounds = 3 * 3 * (3 + 2)  # rounds, engines, warm-up calls and timed calls
    timed = [name for name, _ in diary[answers + warm : answers + warm + rounds]]
    turns = [name for name, _ in itertools.groupby(timed)]
    # three rounds, each starting one engine later
    assert turns == ["torch-fp32", "a", "b", "a", "b", "torch-fp32", "b", "torch-fp32", "a"]


def test_latencies_are_counted_and_summed_up():
    found = run(a={"scale": 1.001})
    row = row_of(found.result, "a")
    raw = found.latency_ms_R["a"]
    assert len(raw) == SPEC.requests == found.result.requests
    assert 0 < raw.min() <= row.p50_ms <= row.p90_ms <= row.p99_ms <= raw.max()
    assert row.mean_ms == pytest.approx(raw.mean())
    assert row.p99_ms <= row.p999_ms <= raw.max()
    assert row.intervals["p50_ms"].low <= row.intervals["p50_ms"].high
    assert set(row.throughput_at) == {"1", "32"}
    assert row.throughput == row.throughput_at["32"] > 0
    assert 0 < row.open_p50_ms <= row.open_p99_ms
    np.testing.assert_array_equal(found.round_R, [0, 0, 1, 1, 2, 2])
    assert row.quality.max_abs_dp is not None
    assert 0 < row.quality.max_abs_dp < 0.01
    assert set(row.metrics()) >= {"p99_ms", "throughput", "accuracy", "auc", "max_abs_dp"}


def test_every_engine_is_paired_with_fp32():
    found = run(a={"scale": -1.0}).result
    assert row_of(found, "torch-fp32").paired is None
    assert row_of(found, "torch-fp32").metrics()["mcnemar_p"] == 1.0  # against itself
    pair = row_of(found, "a").paired
    assert pair is not None
    assert (pair.worse, pair.better) == (COUNT, 0)  # the classes are swapped
    assert pair.differences["accuracy"].high < 0
    chance = row_of(found, "a").metrics()["mcnemar_p"]
    assert chance is not None
    assert chance < 1e-9


def test_the_floor_is_the_arithmetic_at_the_machines_peak():
    found = run(a={}).result
    reference = row_of(found, "torch-fp32")
    assert reference.floor_ms == pytest.approx(1.0)  # 1e8 at 1e11 per second
    assert reference.floor_fraction == pytest.approx(1.0 / reference.p50_ms)
    assert row_of(found, "a").floor_ms is None  # its FLOPs are unknown


def test_an_engine_that_mixes_the_windows_of_a_batch_is_detected():
    class Mixing(Linear):
        def predict(self, x_BTF):
            return super().predict(x_BTF) - super().predict(x_BTF).mean(axis=0)

    diary: Diary = []
    found = measured({"torch-fp32": Linear("r", diary), "mixing": Mixing("m", diary)}).result
    assert row_of(found, "torch-fp32").batch_dependence == 0.0
    dependence = row_of(found, "mixing").batch_dependence
    assert dependence is not None
    assert dependence > 0.1


def test_non_finite_predictions_are_counted():
    found = run(a={"poison": True})
    quality = row_of(found.result, "a").quality
    assert quality.non_finite == quality.flips == 3  # one in each batch
    assert quality.accuracy is None
    assert row_of(found.result, "a").batch_dependence is None


def test_requests_with_nan_or_infinity_that_are_answered_are_counted():
    class Answers(Linear):
        def predict(self, x_BTF):
            return super().predict(np.nan_to_num(x_BTF))

    class AnswersAlone(Linear):
        def predict(self, x_BTF):
            return super().predict(np.nan_to_num(x_BTF) if len(x_BTF) == 1 else x_BTF)

    predictors = {"torch-fp32": Linear("r", []), "a": Answers("a", []), "b": AnswersAlone("b", [])}
    found = measured(predictors).result
    assert [row.accepted_non_finite for row in found.rows] == [0, 12, 6]
    assert row_of(found, "a").metrics()["accepted_non_finite"] == 12


@pytest.mark.parametrize("bad", [[0, -np.inf], [-np.inf, 0], [np.inf, 0], [0, np.nan]])
def test_a_non_finite_logit_gives_a_nan_probability(bad):
    found = measure.probability(np.array([bad, [0, 0]], np.float32))
    assert np.isnan(found[0])
    assert found[1] == 0.5


def test_a_reference_that_is_not_finite_is_an_error():
    with pytest.raises(EngineError, match="torch-fp32 outputs NaN or infinity on 3 of 150 windows"):
        measured({"torch-fp32": Linear("torch-fp32", [], poison=True)})


def test_an_engine_of_other_features_sees_only_its_own_windows():
    class Strict(Linear):
        def predict(self, x_BTF):
            assert (x_BTF[:, 0, 1] == 77.0).all(), "windows of other features"
            return super().predict(x_BTF)

    own = -X
    own[:, 0, 1] = 77.0
    predictors = {"torch-fp32": Linear("r", []), "champion": Strict("c", [], scale=-1.0)}
    windows_of = {"champion": lambda a, b: own[a:b]}
    found = measured(predictors, windows_of=windows_of)
    row = row_of(found.result, "champion")
    assert (row.quality.auc, row.quality.flips, row.batch_dependence) == (1.0, 0, 0.0)
    other = measured(predictors).result
    assert other.row("champion") is None
    assert "windows of other features" in other.unavailable["champion"]


def test_progress_is_reported_and_unavailable_engines_are_kept_with_their_reason():
    seen = []
    found = measured(
        {"torch-fp32": Linear("torch-fp32", [])},
        unavailable={"tensorrt-fp16": "no NVIDIA driver"},
        progress=lambda *step: seen.append(step),
    ).result
    assert found.unavailable == {"tensorrt-fp16": "no NVIDIA driver"}
    assert found.row("tensorrt-fp16") is None
    assert {"torch", "load_1min", "load_1min_after"} <= set(found.machine)
    assert ("predictions", COUNT, COUNT) in seen
    assert {what for what, done, of in seen if done == of} == {
        "predictions",
        "latency, rounds",
        "throughput, rounds",
        "open loop, rounds",
    }


def test_a_run_is_saved_and_read_back(tmp_path):
    found = run(a={"scale": 2.0})
    found.save(tmp_path)
    back = BenchmarkRun.load(tmp_path)
    assert back.result == found.result
    np.testing.assert_array_equal(back.label_N, LABEL)
    np.testing.assert_array_equal(back.round_R, found.round_R)
    np.testing.assert_array_equal(back.context.symbol_N, CONTEXT.symbol_N)
    np.testing.assert_array_equal(back.context.timestamp_ns_N, CONTEXT.timestamp_ns_N)
    np.testing.assert_array_equal(back.context.volatility_N, CONTEXT.volatility_N)
    for name in ("torch-fp32", "a"):
        np.testing.assert_array_equal(back.latency_ms_R[name], found.latency_ms_R[name])
        np.testing.assert_array_equal(back.probability_N[name], found.probability_N[name])


def test_gradient_boosting_is_saved_and_read_back(tmp_path):
    own = {"gradient boosting": 0.25}
    result = run().result.model_copy(update={"threshold": 0.125, "own_thresholds": own})
    boosting_N = np.linspace(0, 1, len(LABEL))
    dataclasses.replace(run(), result=result, boosting_N=boosting_N).save(tmp_path)
    back = BenchmarkRun.load(tmp_path)
    np.testing.assert_array_equal(back.boosting_N, boosting_N)
    assert "gradient boosting" not in back.probability_N
    assert back.result.threshold_of("gradient boosting") == 0.25
    assert back.result.threshold_of("torch-fp32") == 0.125


def test_a_run_of_an_earlier_version_has_no_gradient_boosting_and_one_half(tmp_path):
    run().save(tmp_path)
    path = tmp_path / "benchmark.json"
    values = json.loads(path.read_text())
    for name in ("threshold", "own_thresholds"):
        del values[name]
    path.write_text(json.dumps(values))
    back = BenchmarkRun.load(tmp_path)
    assert back.boosting_N is None
    assert back.result.threshold_of("torch-fp32") == 0.5


def test_gradient_boosting_on_other_windows_is_refused():
    with pytest.raises(EngineError, match="3 predictions for"):
        measured({"torch-fp32": Linear("torch-fp32", [])}, boosting_N=np.zeros(3))


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        run().save(tmp_path / "file")


def test_without_a_reference_nothing_is_measured():
    with pytest.raises(EngineError, match="nothing to compare against"):
        measured({"a": Linear("a", [])})


def test_without_windows_nothing_is_measured():
    predictors = {"torch-fp32": Linear("torch-fp32", [])}
    with pytest.raises(EngineError, match="no test window"):
        measured(predictors, LABEL[:0])


def test_an_output_of_another_shape_is_an_error():
    class Wrong:
        def predict(self, x_BTF):
            return np.zeros((len(x_BTF), 3), np.float32)

    with pytest.raises(EngineError, match=r"returns \(64, 3\)"):
        measured({"torch-fp32": Wrong()})
    others = measured({"torch-fp32": Linear("r", []), "a": Wrong()}).result
    assert [row.engine for row in others.rows] == ["torch-fp32"]
    assert others.unavailable == {
        "a": "failed: measure: engine a returns (64, 3), expected (batch, 2)"
    }


def test_measurements_through_the_server_are_added_and_kept(tmp_path):
    load = LoadRow(load="concurrency 8", p50_ms=2.0, p99_ms=4.0, throughput=900.0, failed=0)
    served = Served(engine="a", server="triton", queue_ms=0.1, compute_ms=1.0, loads=(load,))
    run().with_served(served).save(tmp_path)
    assert BenchmarkRun.load(tmp_path).result.served == served


def test_a_day_shorter_than_a_batch_is_repeated_to_fill_it():
    few = benchmark(
        {"torch-fp32": Linear("torch-fp32", [])},
        lambda a, b: X[COUNT // 2 - 5 : COUNT // 2 + 5][a:b],
        LABEL[COUNT // 2 - 5 : COUNT // 2 + 5],
        WindowContext(
            *(
                column[COUNT // 2 - 5 : COUNT // 2 + 5]
                for column in vars(CONTEXT).values()
                if column is not None
            )
        ),
        SPEC,
    )
    assert few.result.windows == 10
    assert row_of(few.result, "torch-fp32").throughput_at["32"] > 0


def test_engines_of_another_model_are_timed_in_the_same_turns_and_not_judged():
    diary: Diary = []
    predictors = {"torch-fp32": Linear("torch-fp32", diary)}
    beside = {"design torch-fp32": Linear("design torch-fp32", diary)}
    found = measured(
        predictors, beside=beside, facts={"design torch-fp32": EngineFacts(flops=10**8)}
    )
    (row,) = found.result.beside
    assert row.engine == "design torch-fp32"
    assert row.floor_ms == pytest.approx(1.0)
    assert row.floor_fraction == pytest.approx(1.0 / row.p50_ms)
    assert found.result.design_p50_ms == row.p50_ms
    assert [row.engine for row in found.result.rows] == ["torch-fp32"]
    assert found.probability_N.keys() == found.latency_ms_R.keys() == {"torch-fp32"}
    asked = [sum(size for name, size in diary if name == engine) for engine in beside]
    assert 0 < asked[0] < COUNT * 2  # never asked for every window


@pytest.mark.parametrize("after", [0, 2, 3, 5, 20, 40, 80, 110])
def test_an_engine_that_fails_has_a_reason_instead_of_a_row(after, tmp_path):
    predictors = {"torch-fp32": Answers(), "a": Fails(after), "b": Answers()}
    found = measured(predictors, beside={"design torch-fp32": Fails(4)})
    assert [row.engine for row in found.result.rows] == ["torch-fp32", "b"]
    assert found.result.beside == ()
    assert found.result.unavailable["a"].startswith("failed: ")
    assert found.result.unavailable["a"].endswith(f"RuntimeError: call {after} failed")
    assert found.probability_N.keys() == found.latency_ms_R.keys() == {"torch-fp32", "b"}
    found.save(tmp_path)
    assert BenchmarkRun.load(tmp_path).result == found.result


def test_a_reference_that_fails_ends_the_measurement():
    with pytest.raises(RuntimeError, match="call 7 failed"):
        measured({"torch-fp32": Fails(7), "b": Answers()})


def test_a_row_is_added_by_the_rules_of_the_others():
    found = run(a={"scale": 2.0})
    added = also(found, "late", Linear("late", [], scale=2.0), lambda a, b: X[a:b], SPEC, FACT)
    assert [row.engine for row in added.result.rows] == ["torch-fp32", "a", "late"]
    late, a = row_of(added.result, "late"), row_of(added.result, "a")
    assert late.quality == a.quality
    assert late.paired == a.paired
    assert late.facts == FACT
    assert len(added.latency_ms_R["late"]) == len(added.round_R)
    np.testing.assert_array_equal(added.probability_N["late"], added.probability_N["a"])
    with pytest.raises(RuntimeError, match="call 3 failed"):
        also(found, "late", Fails(3), lambda a, b: X[a:b], SPEC, FACT)


def test_the_rounds_are_spread_over_repetitions(tmp_path):
    found = run()
    np.testing.assert_array_equal(found.round_R, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(found.repeat_R, [0, 0, 1, 1, 2, 2])
    found.save(tmp_path)
    np.testing.assert_array_equal(BenchmarkRun.load(tmp_path).repeat_R, found.repeat_R)
    disturbed_R = np.array([1.0, 1.0, 1.0, 1.0, 9.0, 9.0])
    slow = dataclasses.replace(found, latency_ms_R={"torch-fp32": disturbed_R})
    assert slow.repeated_p50_ms("torch-fp32") == 1.0
    earlier = dataclasses.replace(
        slow, repeat_R=None, latency_ms_R={"a": np.array([1.0, 1.0, 1.0, 4.0, 4.0, 4.0])}
    )
    assert earlier.repeated_p50_ms("a") == 2.5
