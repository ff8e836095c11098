import itertools

import numpy as np
import pytest

from model_code.benchmark.measure import benchmark
from model_code.benchmark.result import BenchmarkRun
from model_code.errors import EngineError, StorageError
from model_code.settings import BenchmarkSpec

COUNT = 150
X = np.random.default_rng(0).normal(size=(COUNT, 64, 16)).astype(np.float32)
LABEL = (X[:, -1, 0] > 0).astype(np.int8)
SPEC = BenchmarkSpec(warmup=2, requests=6, rounds=3, throughput_batch=32, throughput_batches=3)


class Linear:
    """Answers from the last row's first feature, and keeps a diary."""

    def __init__(self, name, diary, scale=1.0, poison=False):
        self.name, self.diary, self.scale, self.poison = name, diary, scale, poison

    def predict(self, x_BTF):
        self.diary.append((self.name, len(x_BTF)))
        logit = self.scale * x_BTF[:, -1, 0]
        logits = np.stack([np.zeros_like(logit), logit], axis=1)
        if self.poison and len(x_BTF) > 1:
            logits[0] = np.inf
        return logits


def run(diary=None, **others) -> BenchmarkRun:
    diary = [] if diary is None else diary
    predictors = {"torch-fp32": Linear("torch-fp32", diary)}
    predictors |= {name: Linear(name, diary, **how) for name, how in others.items()}
    return benchmark(predictors, lambda start, stop: X[start:stop], LABEL, SPEC)


def test_every_window_is_answered_once_in_batches_of_64():
    diary = []
    found = run(diary)
    assert diary[:3] == [("torch-fp32", 64), ("torch-fp32", 64), ("torch-fp32", 22)]
    assert found.result.windows == COUNT
    expected = 1 / (1 + np.exp(-X[:, -1, 0].astype(float)))
    np.testing.assert_allclose(found.probability_N["torch-fp32"], expected, rtol=1e-6)
    assert found.result.rows[0].quality.auc == 1.0


def test_engines_take_turns_in_a_rotating_order():
    diary = []
    run(diary, a={}, b={})
    timed = [name for name, batch in diary[9:] if batch in (1, 32)]
    turns = [name for name, _ in itertools.groupby(timed)]
    # warm-up, then three rounds, each starting one engine later
    warm, rounds = turns[:3], turns[3:]
    assert warm == ["torch-fp32", "a", "b"]
    assert rounds == ["torch-fp32", "a", "b", "a", "b", "torch-fp32", "b", "torch-fp32", "a"]


def test_latencies_are_counted_and_summed_up():
    found = run(a={"scale": 1.001})
    row = found.result.row("a")
    assert row is not None
    raw = found.latency_ms_R["a"]
    assert len(raw) == SPEC.requests == found.result.requests
    assert 0 < raw.min() <= row.p50_ms <= row.p90_ms <= row.p99_ms <= raw.max()
    assert row.mean_ms == pytest.approx(raw.mean())
    assert row.throughput > 0
    assert 0 < row.quality.max_abs_dp < 0.01
    assert set(row.metrics()) >= {"p99_ms", "throughput", "accuracy", "auc", "max_abs_dp"}


def test_answers_that_are_not_finite_are_counted():
    found = run(a={"poison": True})
    quality = found.result.row("a").quality
    assert quality.non_finite == quality.flips == 3  # one in each batch
    assert quality.accuracy is None
    assert "| – | – |" in found.result.markdown()


def test_the_table_lists_unavailable_engines_with_reasons():
    predictors = {"torch-fp32": Linear("torch-fp32", [])}
    seen = []
    found = benchmark(
        predictors,
        lambda start, stop: X[start:stop],
        LABEL,
        SPEC,
        unavailable={"tensorrt-fp16": "no NVIDIA driver"},
        progress=lambda *step: seen.append(step),
    )
    table = found.result.markdown()
    assert "| torch-fp32 |" in table
    assert "0 of 150" in table
    assert "| tensorrt-fp16 | unavailable: no NVIDIA driver |" in table
    assert found.result.machine["torch"]
    assert found.result.row("tensorrt-fp16") is None
    assert seen[-1] == ("rounds", 3, 3)
    assert ("answers", COUNT, COUNT) in seen


def test_a_run_is_saved_and_read_back(tmp_path):
    found = run(a={"scale": 2.0})
    found.save(tmp_path)
    back = BenchmarkRun.load(tmp_path)
    assert back.result == found.result
    np.testing.assert_array_equal(back.label_N, LABEL)
    for name in ("torch-fp32", "a"):
        np.testing.assert_array_equal(back.latency_ms_R[name], found.latency_ms_R[name])
        np.testing.assert_array_equal(back.probability_N[name], found.probability_N[name])


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        run().save(tmp_path / "file")


def test_without_a_reference_nothing_is_measured():
    with pytest.raises(EngineError, match="nothing to compare with"):
        benchmark({"a": Linear("a", [])}, lambda a, b: X[a:b], LABEL, SPEC)


def test_without_windows_nothing_is_measured():
    predictors = {"torch-fp32": Linear("torch-fp32", [])}
    with pytest.raises(EngineError, match="no test window"):
        benchmark(predictors, lambda a, b: X[a:b], LABEL[:0], SPEC)


def test_an_answer_of_another_shape_is_an_error():
    class Wrong:
        def predict(self, x_BTF):
            return np.zeros((len(x_BTF), 3), np.float32)

    with pytest.raises(EngineError, match=r"answers \(64, 3\)"):
        benchmark({"torch-fp32": Wrong()}, lambda a, b: X[a:b], LABEL, SPEC)
