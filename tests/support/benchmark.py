"""Synthetic benchmark runs for tests, summarised by the same code as measured ones."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from model_code.benchmark.measure import row
from model_code.benchmark.regression import compare
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun, EngineFacts, EngineRow
from model_code.benchmark.slices import WindowContext
from model_code.benchmark.timing import Timings
from model_code.features.strata import in_words
from model_code.settings import REFERENCE_ENGINE

ROUNDS = 20
BATCHES = (1, 8, 64)


def context(count: int) -> WindowContext:
    """Windows a second apart, two instruments, rising spreads, falling volatility."""
    return WindowContext(
        timestamp_ns_N=np.arange(count, dtype=np.int64) * 10**9,
        symbol_N=np.array(["A", "B"]).repeat(-(-count // 2))[:count],
        spread_N=np.linspace(1, 2, count),
        volatility_N=np.linspace(2, 1, count),
    )


def row_of(result: BenchmarkResult, engine: str) -> EngineRow:
    """The row of an engine that was measured."""
    found = result.row(engine)
    assert found is not None, f"{engine} was not measured"
    return found


def benchmark_run(
    label_N: NDArray[np.integer],
    probability_N: Mapping[str, NDArray[np.float64]],
    latency_ms_R: Mapping[str, NDArray[np.float64]],
    *,
    batch_dependence: Mapping[str, float | None] | None = None,
    unavailable: Mapping[str, str] | None = None,
    boosting_N: NDArray[np.float64] | None = None,
    threshold: float = 0.5,
    own_thresholds: Mapping[str, float] | None = None,
    windows: WindowContext | None = None,
    repeats: int = 1,
) -> BenchmarkRun:
    """A run with these answers and latencies, on `context` unless `windows` are given."""
    windows = windows or context(len(label_N))
    own = dict(own_thresholds or {})
    requests = len(latency_ms_R[REFERENCE_ENGINE])
    timings = Timings(
        round_R=np.arange(requests) * ROUNDS // requests,
        repeat_R=np.arange(requests) * repeats // requests,
        latency_ms_R=dict(latency_ms_R),
        throughput={
            name: {batch: 1e3 / float(values.mean()) for batch in BATCHES}
            for name, values in latency_ms_R.items()
        },
        open_ms_R=dict(latency_ms_R),
    )
    rows = tuple(
        row(
            name,
            EngineFacts(flops=147_194_112, size_mib=4.3),
            timings,
            2e11,
            (batch_dependence or {}).get(name, 0.0),
            compare(
                label_N,
                answers,
                probability_N[REFERENCE_ENGINE],
                threshold=own.get(name, threshold),
                reference_threshold=threshold,
                weight_N=windows.weight_N,
            ),
            accepted=0,
        )
        for name, answers in probability_N.items()
    )
    result = BenchmarkResult(
        rows=rows,
        unavailable=dict(unavailable or {}),
        windows=len(label_N),
        sampling=in_words(label_N, windows.weight_N),
        requests=requests,
        open_loop_hz=100.0,
        ceilings={"cpu fp32": 2e11},
        machine={"processor": "simulated"},
        threshold=threshold,
        own_thresholds=own,
    )
    return BenchmarkRun(
        result,
        label_N,
        windows,
        timings.round_R,
        dict(latency_ms_R),
        dict(probability_N),
        boosting_N,
        timings.repeat_R,
    )
