"""The benchmark flow on a simulated market, against the real servers."""

import re
from pathlib import Path

import pytest
from builders_flow import QUICK_BENCHMARK, tiny
from mlflow.tracking import MlflowClient
from rich.console import Console
from typer.testing import CliRunner

from flows import bench_tables
from flows.bench import EXPERIMENT, Bench, bench
from flows.cli import app
from model_code.benchmark.result import BenchmarkRun
from model_code.settings import Settings
from tasks import tracking

SIMULATED = "simulated:?seed=3&instruments=1&days=2&minutes=2"


@pytest.fixture
def found(home: Settings) -> tuple[Bench, ...]:
    from infra.triton.install import install

    install(home)
    served = QUICK_BENCHMARK.model_copy(update={"served": True})
    return bench(tiny(SIMULATED, benchmark=served), repeat=2)


def test_a_benchmark_is_measured_afresh_each_time_and_lands_in_its_own_experiment(
    found: tuple[Bench, ...], home: Settings
) -> None:
    first, second = (BenchmarkRun.load(Path(done.folder)) for done in found)
    assert (first.latency_ms_R["torch-fp32"] != second.latency_ms_R["torch-fp32"]).any()
    assert (first.probability_N["torch-fp32"] == second.probability_N["torch-fp32"]).all()

    result = second.result
    assert {"torch-fp32", "onnxruntime-fp32", "openvino-fp32", "triton-grpc"} <= {
        row.engine for row in result.rows
    }
    assert "NVIDIA" in result.unavailable["tensorrt-fp16"]
    served = result.row("triton-grpc")
    assert served is not None
    assert served.quality.flips == 0
    assert result.served is not None
    assert result.served.engine in served.facts.note
    assert [row.failed for row in result.served.loads] == [0, 0, 0]
    assert result.served.compute_ms > 0

    mlflow = MlflowClient(home.tracking_uri)
    settings = home.model_copy(update={"mlflow_experiment": EXPERIMENT})
    runs = mlflow.search_runs([tracking.experiment_id(mlflow, settings)])
    names = {run.info.run_name for run in runs}
    assert {"engine torch-fp32", "engine triton-grpc"} <= names
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    kept = {entry.path for entry in mlflow.list_artifacts(parent.info.run_id, "benchmark-2")}
    assert {"benchmark-2/benchmark.html", "benchmark-2/latencies.parquet"} <= kept

    console = Console(width=200, record=True)
    parts = list(bench_tables.render(found))
    for part in parts:
        console.print(part)
    text = console.export_text()
    assert "Through Triton" in text
    assert re.fullmatch(r"same ranking [12]/2, same verdict [12]/2", str(parts[-1]))
    alone = list(bench_tables.render(found[1:]))[-1]
    assert re.fullmatch(
        r"chosen \S+: \d+\.\dx torch-fp32 at batch 1, \d+% of the arithmetic floor", str(alone)
    )


def test_help_says_what_is_measured_and_where_it_goes() -> None:
    text = CliRunner().invoke(app, ["bench", "--help"], env={"COLUMNS": "120"}).output
    assert "--repeat" in text
    assert "side by side" in text
