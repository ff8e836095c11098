"""Engines measured against each other on the newest day's windows.

Engines take turns round by round, each round in another order, so that a busy minute of the
machine or a warming core falls on all of them alike.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes, N test windows, R timed requests.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code import machine, network
from model_code.artifacts import atomic_file
from model_code.benchmark.regression import Regression, compare
from model_code.engines.protocol import Predictor
from model_code.errors import EngineError
from model_code.settings import REFERENCE_ENGINE, BenchmarkSpec

Windows = Callable[[int, int], NDArray[np.float32]]
Progress = Callable[[str, int, int], None]

ROUND_WARMUP = 3  # calls before each turn: caches and clocks belong to the engine before
LIBRARIES = ("torch", "onnxruntime", "openvino", "numpy")


class EngineRow(BaseModel):
    """One engine's line of the table.

    Attributes:
        engine: name.
        mean_ms: batch-1 latency, milliseconds, like the next three.
        p50_ms: median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        throughput: windows per second at the throughput batch.
        quality: answers against truth and FP32.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    engine: str
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    quality: Regression

    def metrics(self) -> dict[str, float | None]:
        """Every number of the row by name, as goals and trackers read them."""
        return self.model_dump(exclude={"engine", "quality"}) | self.quality.model_dump()


class BenchmarkResult(BaseModel):
    """The table and the circumstances it was measured in.

    Attributes:
        rows: measured engines, in the order given.
        unavailable: reasons by engine name.
        windows: test windows answered by every engine.
        requests: timed batch-1 requests an engine.
        throughput_batch: windows per call when measuring throughput.
        machine: processor, cores, load, library versions.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    rows: tuple[EngineRow, ...]
    unavailable: dict[str, str]
    windows: int
    requests: int
    throughput_batch: int
    machine: dict[str, str]

    def row(self, engine: str) -> EngineRow | None:
        """The engine's row, None where it was not measured."""
        return next((row for row in self.rows if row.engine == engine), None)

    def markdown(self) -> str:
        """The table for people, unavailable engines and their reasons included."""
        lines = [
            "| engine | mean (ms) | p50 (ms) | p99 (ms) | throughput (windows/s) "
            "| accuracy | AUC | flips against FP32 |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for row in self.rows:
            quality = row.quality
            lines.append(
                f"| {row.engine} | {row.mean_ms:.2f} | {row.p50_ms:.2f} | {row.p99_ms:.2f} "
                f"| {row.throughput:,.0f} | {_cell(quality.accuracy)} | {_cell(quality.auc)} "
                f"| {quality.flips} of {self.windows} |"
            )
        lines += [
            f"| {name} | unavailable: {reason} | | | | | | |"
            for name, reason in self.unavailable.items()
        ]
        facts = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        lines += ["", f"Latency at batch 1, throughput at batch {self.throughput_batch}. {facts}."]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class BenchmarkRun:
    """The result with the raw numbers behind it.

    Attributes:
        result: table and circumstances.
        label_N: truth.
        latency_ms_R: raw batch-1 latencies by engine.
        probability_N: probability of class 1 by engine.
    """

    result: BenchmarkResult
    label_N: NDArray[np.integer]
    latency_ms_R: dict[str, NDArray[np.float64]] = field(repr=False)
    probability_N: dict[str, NDArray[np.float64]] = field(repr=False)

    def save(self, folder: Path) -> None:
        """Write benchmark.json, benchmark.md, latencies.parquet and predictions.parquet.

        Raises:
            StorageError: the folder cannot be written.
        """
        predictions = pl.DataFrame({"label": self.label_N, **self.probability_N})
        with atomic_file(folder / "benchmark.json") as path:
            path.write_text(self.result.model_dump_json(indent=2) + "\n")
        with atomic_file(folder / "benchmark.md") as path:
            path.write_text(self.result.markdown())
        with atomic_file(folder / "latencies.parquet") as path:
            pl.DataFrame(self.latency_ms_R).write_parquet(path)
        with atomic_file(folder / "predictions.parquet") as path:
            predictions.write_parquet(path)

    @classmethod
    def load(cls, folder: Path) -> "BenchmarkRun":
        """Read what `save` wrote."""
        latencies = pl.read_parquet(folder / "latencies.parquet")
        predictions = pl.read_parquet(folder / "predictions.parquet")
        label = predictions.drop_in_place("label")
        return cls(
            result=BenchmarkResult.model_validate_json((folder / "benchmark.json").read_bytes()),
            label_N=label.to_numpy(),
            latency_ms_R={column.name: column.to_numpy() for column in latencies},
            probability_N={column.name: column.to_numpy() for column in predictions},
        )


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
    probability_N = _answers(predictors, windows, count, spec.throughput_batch, report)
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
    predictors: Mapping[str, Predictor], windows: Windows, count: int, batch: int, report: Progress
) -> dict[str, NDArray[np.float64]]:
    answers: dict[str, list[NDArray[np.float64]]] = {name: [] for name in predictors}
    for start in range(0, count, batch):
        x_BTF = windows(start, min(start + batch, count))
        for name, predictor in predictors.items():
            logits_BC = predictor.predict(x_BTF)
            if logits_BC.shape != (len(x_BTF), 2):
                raise EngineError(f"engine {name} answers {logits_BC.shape}, expected (batch, 2)")
            answers[name].append(network.probability(logits_BC))
        report("answers", min(start + batch, count), count)
    return {name: np.concatenate(parts) for name, parts in answers.items()}


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


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
