"""Result of a benchmark: the table, the conditions, the raw numbers.

Shapes: N test windows, R timed requests.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import atomic_file
from model_code.benchmark.regression import Regression
from model_code.benchmark.significance import Interval, Paired
from model_code.benchmark.slices import WindowContext
from model_code.benchmark.timing import STABLE_WITHIN
from model_code.repository.terms import Terms
from model_code.settings import BOOSTING_ROW, DESIGN, REFERENCE_ENGINE
from model_code.training.threshold import DEFAULT_THRESHOLD

WEIGHT = "weight"  # column of predictions.parquet, if windows have weights
REPEAT = "repeat"  # column of latencies.parquet


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class EngineFacts(_Frozen):
    """Facts about an engine that are known before timing.

    Attributes:
        precision: arithmetic of the matrix products.
        device: "cpu" or "cuda".
        flops: of one window's matrix products as this engine computes them, a multiply-add
            counted twice; None if unknown.
        size_mib: of the engine's file.
        peak_mib: memory added by loading and the largest batch; None if unknown.
        gpu_mib: the same of the GPU; None for an engine on the CPU.
        note: a remark for the reader, for example the engine behind a server.
        version: model version, if it is not the newly trained model's: the champion's.
        same_engine: whether the latency is of the engine that serves; not if the version was
            measured through its ONNX graph instead.
        sha256: of the engine's file; None in a run of an earlier version.
    """

    precision: str = "fp32"
    device: str = "cpu"
    flops: int | None = None
    size_mib: float | None = None
    peak_mib: float | None = None
    gpu_mib: float | None = None
    note: str = ""
    version: int | None = None
    same_engine: bool = True
    sha256: str | None = None


class EngineRow(_Frozen):
    """One engine's line of the table.

    Attributes:
        engine: name.
        facts: precision, size, memory, arithmetic.
        mean_ms: batch-1 latency, milliseconds, like the next four.
        p50_ms: median.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        p999_ms: 99.9th percentile.
        intervals: 95% confidence intervals of the five.
        drift: see `timing.drift`.
        open_p50_ms: of the open loop, from the intended send time.
        open_p99_ms: of the open loop.
        throughput: windows per second at the largest batch.
        throughput_at: windows per second by batch size.
        floor_ms: time of the engine's arithmetic at the machine's measured peak; None if unknown.
        batch_dependence: largest |probability difference| between a window alone and the same
            window in a full batch; None if a prediction is not finite.
        accepted_non_finite: requests with NaN or infinity in a window that were answered instead of
            refused, of 12; None in a run of an earlier version.
        quality: predictions compared with the labels and FP32.
        paired: the tests of "no worse than FP32"; None for FP32 itself.
    """

    engine: str
    facts: EngineFacts
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    intervals: dict[str, Interval]
    drift: float
    open_p50_ms: float
    open_p99_ms: float
    throughput: float
    throughput_at: dict[str, float]
    floor_ms: float | None
    batch_dependence: float | None
    accepted_non_finite: int | None = None
    quality: Regression
    paired: Paired | None = None

    @property
    def stable(self) -> bool:
        """Whether the medians of the measurement's thirds agree within 10%."""
        return self.drift <= STABLE_WITHIN

    @property
    def floor_fraction(self) -> float | None:
        """Share of the arithmetic floor that the median reaches; 1 is the physical limit."""
        return None if self.floor_ms is None else self.floor_ms / self.p50_ms

    @property
    def _mcnemar_p(self) -> float | None:
        if self.engine == REFERENCE_ENGINE:
            return 1.0  # no window differs from itself; set so that all engines have the metric
        return self.paired.p_value if self.paired else None

    def metrics(self) -> dict[str, float | None]:
        """All metrics of the row by name, for the goals and for experiment tracking."""
        skip = {"engine", "facts", "intervals", "throughput_at", "quality", "paired"}
        return (
            self.model_dump(exclude=skip)
            | {f"throughput_b{batch}": rate for batch, rate in self.throughput_at.items()}
            | {"floor_fraction": self.floor_fraction}
            | {"mcnemar_p": self._mcnemar_p}
            | self.facts.model_dump(include={"size_mib", "peak_mib", "gpu_mib"})
            | self.quality.model_dump()
        )


class BesideRow(_Frozen):
    """An engine of another model, timed in the same turns; its answers are not judged.

    Attributes:
        engine: name, after the model's: "design torch-fp32".
        floor_ms: time of its arithmetic at this run's ceiling; None if unknown.
    """

    engine: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    mean_ms: float
    interval: Interval | None
    floor_ms: float | None

    @property
    def floor_fraction(self) -> float | None:
        """Share of the arithmetic floor that the median reaches; 1 is the physical limit."""
        return None if self.floor_ms is None else self.floor_ms / self.p50_ms


class LoadRow(_Frozen):
    """The server under one kind of load; latencies in milliseconds at the client.

    Attributes:
        load: "concurrency 8" or "open loop, 100 requests/s".
        throughput: answered requests per second.
        failed: requests without a response.
    """

    load: str
    p50_ms: float
    p99_ms: float
    throughput: float
    failed: int


class Served(_Frozen):
    """One engine served by the real server.

    Attributes:
        engine: the served engine: the one that would be staged.
        server: name and version of the server.
        queue_ms: mean time of a batch-1 request in the server's queue.
        compute_ms: mean time in the engine's backend.
        loads: the server under concurrency and at a fixed arrival rate.
    """

    engine: str
    server: str
    queue_ms: float
    compute_ms: float
    loads: tuple[LoadRow, ...]


class Other(_Frozen):
    """An earlier version that the candidate is compared with.

    Attributes:
        version: in the registry.
        terms: what its figures refer to; None if it did not record them.
    """

    version: int
    terms: Terms | None = None


class BenchmarkResult(_Frozen):
    """The table and the conditions of the measurement.

    Attributes:
        rows: measured engines, in the order given.
        unavailable: reasons by engine name.
        windows: test windows predicted by every engine.
        sampling: how many of each class those are, of how many, where they have weights.
        requests: timed batch-1 requests per engine.
        open_loop_hz: arrival rate of the open loop.
        ceilings: highest FLOP/s of a large matrix product by "device precision", in this run.
        served: measurements through the server; None if none was used.
        beside: engines of the design's network, timed in the same turns.
        machine: processor, cores, load, library versions.
        simulated: the windows are from a simulated market.
        threshold: probability from which a window counts as class 1, chosen on the validation
            windows of the newly trained network.
        own_thresholds: of the champion, the anchor and gradient boosting, chosen on theirs.
        terms: what the candidate's figures refer to; None in a run of an earlier version.
        champion: the serving version; None without one, and in a run of an earlier version.
        anchor: the version that served `BenchmarkSpec.anchor_nights` ago; it has no row of its own
            if it is the champion.
        no_anchor: why there is none.
    """

    rows: tuple[EngineRow, ...]
    unavailable: dict[str, str]
    windows: int
    sampling: str = ""
    requests: int
    open_loop_hz: float
    ceilings: dict[str, float]
    served: Served | None = None
    beside: tuple[BesideRow, ...] = ()
    machine: dict[str, str]
    simulated: bool = False
    threshold: float = DEFAULT_THRESHOLD
    own_thresholds: dict[str, float] = {}
    terms: Terms | None = None
    champion: Other | None = None
    anchor: Other | None = None
    no_anchor: str = ""

    def threshold_of(self, engine: str) -> float:
        """The threshold of an engine's decisions."""
        return self.own_thresholds.get(engine, self.threshold)

    def row(self, engine: str) -> EngineRow | None:
        """The engine's row, or None if it was not measured."""
        return next((row for row in self.rows if row.engine == engine), None)

    def speedup(self, engine: str) -> float | None:
        """Speed-up over eager FP32 at batch 1, from the medians of the same run."""
        row, reference = self.row(engine), self.row(REFERENCE_ENGINE)
        return reference.p50_ms / row.p50_ms if row and reference else None

    @property
    def design_p50_ms(self) -> float | None:
        """Median of the design's network in eager FP32; None if it was not timed beside."""
        name = f"{DESIGN.name} {REFERENCE_ENGINE}"
        return next((row.p50_ms for row in self.beside if row.engine == name), None)


@dataclass(frozen=True)
class BenchmarkRun:
    """The result with its raw numbers.

    Attributes:
        result: table and conditions.
        label_N: labels.
        context: time, instrument, spread, volatility and weight of every window.
        round_R: round of each timed request, the same for all engines.
        latency_ms_R: raw batch-1 latencies by engine.
        probability_N: probability of class 1 by engine.
        boosting_N: gradient boosting's, on the same windows; None in a run of an earlier version.
        repeat_R: the repetition of each timed request; None in a run of an earlier version.
    """

    result: BenchmarkResult
    label_N: NDArray[np.integer]
    context: WindowContext
    round_R: NDArray[np.integer]
    latency_ms_R: dict[str, NDArray[np.float64]] = field(repr=False)
    probability_N: dict[str, NDArray[np.float64]] = field(repr=False)
    boosting_N: NDArray[np.float64] | None = field(default=None, repr=False)
    repeat_R: NDArray[np.integer] | None = None

    def repeated_p50_ms(self, engine: str) -> float:
        """The median of an engine's median latencies in the repeated measurements."""
        latency_R = self.latency_ms_R[engine]
        return float(np.median([np.median(latency_R[part_R]) for part_R in self.repetitions()]))

    def repetitions(self) -> tuple[NDArray[np.bool_], ...]:
        """Which timed requests are of each repeated measurement, (R,) each."""
        if self.repeat_R is None:
            return (np.ones(len(self.round_R), dtype=np.bool_),)
        return tuple(self.repeat_R == repeat for repeat in np.unique(self.repeat_R))

    def without(self, engine: str, reason: str) -> Self:
        """The same run, in which an engine has a reason instead of figures."""
        unavailable = self.result.unavailable | {engine: reason}
        return replace(self, result=self.result.model_copy(update={"unavailable": unavailable}))

    def with_served(self, served: Served) -> Self:
        """The same run with the measurements through the server."""
        return replace(self, result=self.result.model_copy(update={"served": served}))

    def save(self, folder: Path) -> None:
        """Write benchmark.json, latencies.parquet and predictions.parquet.

        Raises:
            StorageError: the folder cannot be written.
        """
        weight_N = self.context.weight_N
        predictions = pl.DataFrame(
            {
                "label": self.label_N,
                "timestamp_ns": self.context.timestamp_ns_N,
                "symbol": self.context.symbol_N,
                "spread": self.context.spread_N,
                "volatility": self.context.volatility_N,
                **({} if weight_N is None else {WEIGHT: weight_N}),
                **self.probability_N,
                **({} if self.boosting_N is None else {BOOSTING_ROW: self.boosting_N}),
            }
        )
        repeats = {} if self.repeat_R is None else {REPEAT: self.repeat_R}
        latencies = pl.DataFrame({"round": self.round_R, **repeats, **self.latency_ms_R})
        with atomic_file(folder / "benchmark.json") as path:
            path.write_text(self.result.model_dump_json(indent=2) + "\n")
        with atomic_file(folder / "latencies.parquet") as path:
            latencies.write_parquet(path)
        with atomic_file(folder / "predictions.parquet") as path:
            predictions.write_parquet(path)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        latencies = pl.read_parquet(folder / "latencies.parquet")
        predictions = pl.read_parquet(folder / "predictions.parquet")
        label, timestamp, symbol, spread, volatility = (
            predictions.drop_in_place(name).to_numpy()
            for name in ("label", "timestamp_ns", "symbol", "spread", "volatility")
        )
        weight_N, boosting_N = (
            predictions.drop_in_place(name).to_numpy() if name in predictions.columns else None
            for name in (WEIGHT, BOOSTING_ROW)
        )
        repeat_R = None
        if REPEAT in latencies.columns:
            repeat_R = latencies.drop_in_place(REPEAT).to_numpy()
        return cls(
            result=BenchmarkResult.model_validate_json((folder / "benchmark.json").read_bytes()),
            label_N=label,
            context=WindowContext(timestamp, symbol.astype(np.str_), spread, volatility, weight_N),
            round_R=latencies.drop_in_place("round").to_numpy(),
            latency_ms_R={column.name: column.to_numpy() for column in latencies},
            probability_N={column.name: column.to_numpy() for column in predictions},
            boosting_N=boosting_N,
            repeat_R=repeat_R,
        )
