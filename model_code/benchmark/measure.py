"""Engines measured against each other on the newest day's windows.

Engines take turns round by round, each round in another order, so that a busy minute of the
machine or a warming core falls on all of them alike.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes, N test windows, R timed requests.
"""

import time
from collections.abc import Callable, Mapping
from importlib import metadata

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from model_code import machine
from model_code.benchmark.regression import compare
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun, EngineRow
from model_code.engines.protocol import Predictor
from model_code.errors import EngineError
from model_code.settings import CLASS_COUNT, MAX_BATCH_SIZE, REFERENCE_ENGINE, BenchmarkSpec

Windows = Callable[[int, int], NDArray[np.float32]]
Progress = Callable[[str, int, int], None]

ROUND_WARMUP = 3  # calls before each turn: caches and clocks belong to the engine before
LIBRARIES = ("torch", "onnxruntime", "openvino", "numpy")


def benchmark(
    predictors: Mapping[str, Predictor],
    windows: Windows,
    label_N: NDArray[np.integer],
    spec: BenchmarkSpec,
    *,
    unavailable: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> BenchmarkRun:
    """Measure latency, throughput and answers of every engine.

    Args:
        predictors: loaded engines by name; the FP32 reference must be among them.
        windows: (start, stop) -> x_BTF float32 of test windows start to stop - 1.
        label_N: truth of all test windows, 0 or 1.
        spec: rounds, requests, batches.
        unavailable: engines that cannot run here, with reasons, for the table.
        progress: called with (what, done, of).

    Raises:
        EngineError: no FP32 reference, no window, or an engine answers in another shape.
    """
    count = len(label_N)
    if REFERENCE_ENGINE not in predictors:
        raise EngineError(f"nothing to compare with: engine {REFERENCE_ENGINE} was not built")
    if count == 0:
        raise EngineError("no test window to measure on", remedy="widen the test day")
    report = progress or (lambda _what, _done, _of: None)
    probability_N = _answers(predictors, windows, count, report)
    latency_ms_R, batch_s = _timings(predictors, windows, count, spec, report)
    rows = tuple(
        EngineRow(
            engine=name,
            mean_ms=float(latency_ms_R[name].mean()),
            p50_ms=float(np.quantile(latency_ms_R[name], 0.50)),
            p90_ms=float(np.quantile(latency_ms_R[name], 0.90)),
            p99_ms=float(np.quantile(latency_ms_R[name], 0.99)),
            throughput=min(spec.throughput_batch, count) * len(batch_s[name]) / sum(batch_s[name]),
            quality=compare(label_N, probability_N[name], probability_N[REFERENCE_ENGINE]),
        )
        for name in predictors
    )
    result = BenchmarkResult(
        rows=rows,
        unavailable=dict(unavailable or {}),
        windows=count,
        requests=len(latency_ms_R[REFERENCE_ENGINE]),
        throughput_batch=min(spec.throughput_batch, count),
        machine=machine.facts() | {name: metadata.version(name) for name in LIBRARIES},
    )
    return BenchmarkRun(result, label_N, latency_ms_R, probability_N)


def _answers(
    predictors: Mapping[str, Predictor], windows: Windows, count: int, report: Progress
) -> dict[str, NDArray[np.float64]]:
    answers: dict[str, list[NDArray[np.float64]]] = {name: [] for name in predictors}
    for start in range(0, count, MAX_BATCH_SIZE):
        stop = min(start + MAX_BATCH_SIZE, count)
        x_BTF = windows(start, stop)
        for name, predictor in predictors.items():
            logits_BC = predictor.predict(x_BTF)
            if logits_BC.shape != (len(x_BTF), CLASS_COUNT):
                raise EngineError(f"engine {name} answers {logits_BC.shape}, expected (batch, 2)")
            answers[name].append(_probability(logits_BC))
        report("answers", stop, count)
    return {name: np.concatenate(parts) for name, parts in answers.items()}


def _probability(logits_BC: NDArray[np.float32]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # infinite logits become NaN, which is counted
        answer: NDArray[np.float64] = softmax(logits_BC.astype(np.float64), axis=1)[:, 1]
    return answer


def _timings(
    predictors: Mapping[str, Predictor],
    windows: Windows,
    count: int,
    spec: BenchmarkSpec,
    report: Progress,
) -> tuple[dict[str, NDArray[np.float64]], dict[str, list[float]]]:
    """Batch-1 latencies in ms and full-batch seconds, engines taking turns."""
    names = list(predictors)
    singles = [windows(i, i + 1).copy() for i in np.linspace(0, count - 1, 64).astype(int)]
    full_BTF = windows(0, min(spec.throughput_batch, count)).copy()
    for predictor in predictors.values():
        for call in range(spec.warmup):
            predictor.predict(singles[call % len(singles)])
        predictor.predict(full_BTF)
    latency: dict[str, list[float]] = {name: [] for name in names}
    batch_s: dict[str, list[float]] = {name: [] for name in names}
    requests, batches = -(-spec.requests // spec.rounds), -(-spec.throughput_batches // spec.rounds)
    for turn in range(spec.rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            predict = predictors[name].predict
            for x_BTF in singles[:ROUND_WARMUP]:
                predict(x_BTF)
            for request in range(requests):
                latency[name].append(1e3 * _seconds(predict, singles[request % len(singles)]))
            batch_s[name] += [_seconds(predict, full_BTF) for _ in range(batches)]
        report("rounds", turn + 1, spec.rounds)
    return {name: np.array(values) for name, values in latency.items()}, batch_s


def _seconds(
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]], x_BTF: NDArray[np.float32]
) -> float:
    started = time.perf_counter_ns()
    predict(x_BTF)
    return (time.perf_counter_ns() - started) / 1e9
