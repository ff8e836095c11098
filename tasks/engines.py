"""Stages of the engines: build each, measure them side by side, judge the candidate."""

import numpy as np
from numpy.typing import NDArray
from prefect import get_run_logger
from rich.console import Console
from rich.progress import Progress, TaskID

from model_code.artifacts import ArtifactRef
from model_code.benchmark import gate, measure, plots
from model_code.benchmark.goals import Goals
from model_code.benchmark.regression import compare
from model_code.benchmark.result import BenchmarkRun
from model_code.engines.onnxruntime_engine import open_graph
from model_code.engines.packaged import physical_cores
from model_code.engines.protocol import EngineSource
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.features.windows import gather
from model_code.inference import probability
from model_code.repository.triton_config import SERVABLE
from model_code.settings import REFERENCE_ENGINE, BenchmarkSpec
from tasks import tracking
from tasks.results import (
    BuiltEngine,
    Champion,
    ExportedNetwork,
    Judged,
    Measured,
    SplitWindows,
)
from tasks.stage import RunRef, stage


@stage("build engine", code=["model_code.engines.registry"], run_name="build {name}")
def build_engine(
    run: RunRef, name: str, model: ArtifactRef, exported: ExportedNetwork
) -> BuiltEngine:
    """Build one engine into a folder with its sidecar, or say why this machine cannot."""
    engine = ENGINES[name]
    reason = engine.availability()
    if reason is not None:
        get_run_logger().info("%s is unavailable: %s", name, reason)
        return BuiltEngine(name=name, folder=None, unavailable=reason, mlflow_run_id=None)
    source = EngineSource(
        model=model.open(), onnx=exported.onnx.open(), torchscript=exported.torchscript.open()
    )
    mlflow = tracking.client(run.settings)
    run_id = tracking.nested(mlflow, run.settings, run.mlflow_run_id, f"engine {name}")
    with run.store.scratch() as scratch:
        out = scratch / name
        sidecar = engine.build(source, out)
        mlflow.log_artifacts(run_id, str(out), "engine")
        folder = run.store.put(out)
    tracking.log_params(mlflow, run_id, _engine_params(sidecar))
    tracking.log_metrics(
        mlflow,
        run_id,
        {"build_seconds": sidecar.build_seconds, "parity_error": sidecar.parity_error},
    )
    mlflow.set_terminated(run_id)
    return BuiltEngine(name=name, folder=folder, unavailable=None, mlflow_run_id=run_id)


@stage("benchmark", code=["model_code.benchmark.measure", "model_code.engines.registry"])
def measure_engines(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    engines: tuple[BuiltEngine, ...],
    champion: Champion | None,
    spec: BenchmarkSpec,
) -> Measured:
    """Measure every built engine, interleaved, on the newest day's windows; and the champion."""
    rows, ends = FeatureTable.load(table.open()), Split.load(split.windows.open()).test_ends
    label_N = np.asarray(rows.label_N[ends])

    def windows(start: int, stop: int) -> NDArray[np.float32]:
        return gather(rows.features_NF, ends[start:stop])

    predictors = {
        engine.name: ENGINES[engine.name].load(engine.folder.open())
        for engine in engines
        if engine.folder
    }
    with Progress(console=Console(stderr=True), transient=True) as bar:
        bars: dict[str, TaskID] = {}

        def report(what: str, done: int, of: int) -> None:
            if what not in bars:
                bars[what] = bar.add_task(f"benchmark, {what}", total=of)
            bar.update(bars[what], completed=done)

        measured = measure.benchmark(
            predictors,
            windows,
            label_N,
            spec,
            unavailable={found.name: found.unavailable for found in engines if found.unavailable},
            progress=report,
        )
    quality = None
    if champion is not None:
        predictor = open_graph(champion.onnx.open(), physical_cores())
        answers = [
            probability(predictor.predict(windows(start, start + spec.throughput_batch)))
            for start in range(0, len(ends), spec.throughput_batch)
        ]
        reference_N = measured.probability_N[REFERENCE_ENGINE]
        quality = compare(label_N, np.concatenate(answers), reference_N).model_dump()
    _log_rows(run, engines, measured)
    with run.store.scratch() as scratch:
        folder = scratch / "benchmark"
        folder.mkdir()
        measured.save(folder)
        plots.draw_benchmark(measured, folder)
        return Measured(
            folder=run.store.put(folder),
            champion_version=champion.version if champion else None,
            champion=quality,
        )


@stage("gate", code=["model_code.benchmark.gate"])
def judge(run: RunRef, measured: Measured, goals: Goals, simulated: bool) -> Judged:  # noqa: ARG001
    """Judge every servable engine; the fastest that does not fail is the one to stage."""
    result = BenchmarkRun.load(measured.folder.open()).result
    reference = result.row(REFERENCE_ENGINE)
    assert reference is not None, "the benchmark refuses to run without its reference"  # noqa: S101
    verdicts = {
        row.engine: gate.decide(
            row.metrics(), reference.metrics(), measured.champion, goals, simulated=simulated
        )
        for row in result.rows
        if row.engine in SERVABLE
    }
    nearest = max(
        verdicts, key=lambda name: sum(row.passed is not False for row in verdicts[name].rows)
    )
    engine = gate.choose(result, verdicts) or nearest
    return Judged(engine=engine, verdict_json=verdicts[engine].model_dump_json())


def _log_rows(run: RunRef, engines: tuple[BuiltEngine, ...], measured: BenchmarkRun) -> None:
    """The same metric names for every engine, in its own nested run, so that compare works."""
    mlflow = tracking.client(run.settings)
    for engine in engines:
        row = measured.result.row(engine.name)
        if engine.mlflow_run_id and row:
            tracking.log_metrics(mlflow, engine.mlflow_run_id, row.metrics())


def _engine_params(sidecar: EngineSidecar) -> dict[str, str]:
    return {
        "engine": sidecar.engine,
        "library": f"{sidecar.library} {sidecar.library_version}",
        "precision": sidecar.precision,
        "device": sidecar.device,
        "threads": str(sidecar.threads),
        "sha256": sidecar.sha256,
    }
