"""One engine that fails, in whatever step, costs its row and not the measurement."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from flows.bench import EXPERIMENT, bench
from flows.cli import tables
from model_code.engines.openvino_engine import OpenVinoFloat32
from model_code.engines.packaged import PackagedEngine
from model_code.settings import BenchmarkSpec, Settings
from tasks.runs import mlflow_runs
from tests.support.flow import QUICK_BENCHMARK, tiny

SIMULATED = "simulated:?seed=3&instruments=1&days=2&minutes=2"
ENGINE = "openvino-fp32"
QUICK = QUICK_BENCHMARK.model_copy(update={"engines": ("onnxruntime-fp32", ENGINE)})


class Broken:
    """Answers so many calls of an engine, then raises what a GPU library raises."""

    def __init__(self, engine: Any, calls: int) -> None:
        self.engine, self.left = engine, calls

    def predict(self, x_BTF: Any) -> Any:
        if self.left == 0:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\n(more lines)")
        self.left -= 1
        return self.engine.predict(x_BTF)


def _old_api(*_: object) -> None:
    raise AttributeError("module 'tensorrt' has no attribute 'EXPLICIT_BATCH'")


def _broken_after(calls: int) -> Callable[[PackagedEngine, Path], Broken]:
    load = PackagedEngine.load
    return lambda engine, folder: Broken(load(engine, folder), calls)


OLD_API = "AttributeError: module 'tensorrt' has no attribute 'EXPLICIT_BATCH'"
NO_MEMORY = "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"


@pytest.mark.parametrize(
    ("method", "planted", "reason"),
    [
        ("availability", _old_api, f"failed: build: {OLD_API}"),
        ("_make", _old_api, f"failed: build: {OLD_API}"),  # converts the graph
        ("_open", _old_api, f"failed: build: {OLD_API}"),
        ("load", _old_api, f"failed: load: {OLD_API}"),
        ("load", _broken_after(0), f"failed: warm up: {NO_MEMORY}"),
        ("load", _broken_after(20), f"failed: measure: {NO_MEMORY}"),
    ],
    ids=["availability", "convert", "build", "load", "warm-up", "measure"],
)
def test_a_measurement_with_a_failing_engine_ends_with_its_row(
    method: str,
    planted: Callable[..., object],
    reason: str,
    home: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OpenVinoFloat32, method, planted)
    (found,) = bench(tiny(SIMULATED, benchmark=BenchmarkSpec.model_validate(QUICK.model_dump())))
    result = found.result
    assert result.unavailable[ENGINE] == reason
    assert {row.engine for row in result.rows} == {"torch-fp32", "onnxruntime-fp32"}
    assert found.judged.engine == "onnxruntime-fp32"
    assert reason in (Path(found.folder) / "benchmark.md").read_text()
    console = Console(width=200, record=True)
    for part in tables.bench_tables((found,)):
        console.print(part)
    assert reason in console.export_text()

    mlflow = MlflowClient(home.tracking_uri)
    settings = home.model_copy(update={"mlflow_experiment": EXPERIMENT})
    runs = mlflow.search_runs([mlflow_runs.experiment_id(mlflow, settings)])
    by_name = {run.info.run_name: run for run in runs}
    failed = by_name[f"engine {ENGINE}"]
    assert (failed.info.status, failed.data.tags["tickline.error"]) == ("FAILED", reason)
    assert by_name["engine onnxruntime-fp32"].info.status == "FINISHED"
