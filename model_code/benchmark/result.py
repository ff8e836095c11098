"""What a benchmark measured: the table, its circumstances, the raw numbers.

Shapes: N test windows, R timed requests.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import atomic_file
from model_code.benchmark.regression import Regression


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
    def load(cls, folder: Path) -> Self:
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


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
