"""Stage `benchmark`: every built engine and the champion, measured side by side.

Shapes: B batch, T = 64 steps, F = 16 features, N test windows.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TaskID

from infra.triton.benchmark_row import ServedEngine, served
from model_code.artifacts import ArtifactRef
from model_code.benchmark import measure
from model_code.benchmark.context import window_context
from model_code.benchmark.memory import gpu_mib, peak_mib
from model_code.benchmark.reports.report import publish
from model_code.benchmark.result import BenchmarkRun, EngineFacts
from model_code.engines.onnxruntime_engine import open_graph
from model_code.engines.protocol import Engine, Predictor
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import EngineError
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.features.windows import gather
from model_code.machine import physical_cores
from model_code.settings import (
    BOOSTING_ROW,
    CHAMPION_ROW,
    MAX_BATCH_SIZE,
    TRITON_ROW,
    BenchmarkSpec,
)
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import (
    Baseline,
    BuiltEngine,
    Champion,
    Measured,
    SplitWindows,
)
from tasks.runs import mlflow_runs


@stage("benchmark")
def benchmark(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    engines: tuple[BuiltEngine, ...],
    champion: Champion | None,
    baseline: Baseline,
    threshold: float,
    spec: BenchmarkSpec,
    beside: tuple[BuiltEngine, ...] = (),
    champion_table: ArtifactRef | None = None,
) -> Measured:
    """Measure every built engine and the champion, interleaved, on the newest day's windows.

    Decisions of the engines are judged at the network's `threshold`, those of the champion and of
    gradient boosting at their own. Engines of another model (`beside`) are timed only. A champion
    of other features predicts the same rows from `champion_table`.

    Raises:
        EngineError: as `measure.benchmark`, or the two tables have other rows.
    """
    rows, parts = FeatureTable.load(table.open()), Split.load(split.windows.open())
    ends = parts.test_ends
    label_N = np.asarray(rows.label_N[ends])

    def windows(start: int, stop: int) -> NDArray[np.float32]:
        return gather(rows.features_NF, ends[start:stop])

    champions = windows if champion_table is None else _own_windows(rows, ends, champion_table)
    batch_BTF = windows(0, min(MAX_BATCH_SIZE, len(ends)))
    folders = {engine.name: engine.folder.open() for engine in engines if engine.folder}
    predictors, facts = _load(folders, champion, batch_BTF, champions(0, len(batch_BTF)))
    others, other_facts = _load(
        {engine.name: engine.folder.open() for engine in beside if engine.folder},
        None,
        batch_BTF,
        batch_BTF,
    )
    unavailable = {
        found.name: found.unavailable for found in (*engines, *beside) if found.unavailable
    }
    with ExitStack() as stack:
        server: ServedEngine | str = "excluded by the spec"
        if spec.served:
            server = stack.enter_context(served(run.settings, folders, predictors, batch_BTF[:1]))
        if isinstance(server, str):
            unavailable[TRITON_ROW] = server
        else:
            predictors[TRITON_ROW] = server.predictor
            facts[TRITON_ROW] = facts[server.engine].model_copy(
                update={
                    "note": f"serves {server.engine}",
                    "size_mib": None,
                    "peak_mib": None,
                    "gpu_mib": None,
                }
            )
        measured = measure.benchmark(
            predictors,
            windows,
            label_N,
            window_context(rows, ends, parts.test_weights),
            spec,
            facts=facts | other_facts,
            unavailable=unavailable,
            simulated=rows.meta.simulated,
            threshold=threshold,
            own_thresholds={BOOSTING_ROW: baseline.threshold}
            | ({CHAMPION_ROW: champion.threshold} if champion else {}),
            boosting_N=np.load(baseline.probability.open()),
            beside=others,
            windows_of={CHAMPION_ROW: champions} if champion_table else None,
            progress=stack.enter_context(_progress("benchmark")),
        )
        if not isinstance(server, str):
            measured = measured.with_served(server.under_load(batch_BTF, spec))
    _log_rows(run, measured)
    with run.store.scratch() as scratch:
        folder = scratch / "benchmark"
        folder.mkdir()
        measured.save(folder)
        publish(measured, folder)
        return Measured(
            folder=run.store.put(folder),
            champion_version=champion.version if champion else None,
            champion_table=champion_table,
        )


def _own_windows(
    rows: FeatureTable, ends: NDArray[np.int64], table: ArtifactRef
) -> measure.Windows:
    """The champion's windows of the same rows.

    Raises:
        EngineError: the other table's rows at the window ends are others.
    """
    own = FeatureTable.load(table.open())
    for name in ("timestamp_N", "symbol_N", "segment_N", "label_N"):
        here_N, there_N = getattr(rows, name), getattr(own, name)
        if len(here_N) != len(there_N) or not np.array_equal(here_N[ends], there_N[ends]):
            raise EngineError(
                f"the champion's feature table has other rows: {name} differs",
                where=table.path,
                remedy="compute both tables again: tickline nightly --refresh",
            )
    return lambda start, stop: gather(own.features_NF, ends[start:stop])


def _load(
    folders: Mapping[str, Path],
    champion: Champion | None,
    largest_BTF: NDArray[np.float32],
    champions_BTF: NDArray[np.float32],
) -> tuple[dict[str, Predictor], dict[str, EngineFacts]]:
    """Load every engine; measure the memory added by loading it and by its largest batch."""
    if champion is not None and champion.engine is not None:
        folders = {**folders, CHAMPION_ROW: champion.engine.open()}
    predictors: dict[str, Predictor] = {}
    facts: dict[str, EngineFacts] = {}
    for name, folder in folders.items():
        sidecar = EngineSidecar.load(folder)
        engine = ENGINES[sidecar.engine]

        x_BTF = champions_BTF if name == CHAMPION_ROW else largest_BTF

        def opened(
            engine: Engine = engine, folder: Path = folder, x_BTF: NDArray[np.float32] = x_BTF
        ) -> Predictor:
            predictor = engine.load(folder)
            predictor.predict(x_BTF)
            return predictor

        (predictors[name], on_gpu), peak = peak_mib(partial(gpu_mib, opened))
        facts[name] = EngineFacts(
            precision=sidecar.precision,
            device=engine.device,
            flops=sidecar.flops,
            size_mib=(folder / sidecar.file).stat().st_size / 2**20,
            peak_mib=peak,
            gpu_mib=on_gpu if engine.device == "cuda" else None,
            note=f"{_version(champion)}, {sidecar.engine}" if name == CHAMPION_ROW else "",
            version=int(champion.version) if champion and name == CHAMPION_ROW else None,
        )
    if champion is not None and champion.engine is None:
        predictors[CHAMPION_ROW] = open_graph(champion.onnx.open(), physical_cores())
        facts[CHAMPION_ROW] = EngineFacts(
            note=f"{_version(champion)}, ONNX graph", version=int(champion.version)
        )
    return predictors, facts


def _version(champion: Champion | None) -> str:
    return f"version {champion.version}" if champion else ""


@contextmanager
def _progress(heading: str) -> Iterator[Callable[[str, int, int], None]]:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        bars: dict[str, TaskID] = {}

        def report(what: str, done: int, of: int) -> None:
            if what not in bars:
                bars[what] = bar.add_task(f"{heading}, {what}", total=of)
            bar.update(bars[what], completed=done)

        yield report


def _log_rows(run: RunRef, measured: BenchmarkRun) -> None:
    """Log each engine to its own nested run, with equal metric names, so MLflow can compare."""
    mlflow = mlflow_runs.client(run.settings)
    for row in measured.result.rows:
        run_id = mlflow_runs.nested(mlflow, run.settings, run.mlflow_run_id, f"engine {row.engine}")
        mlflow_runs.log_params(mlflow, run_id, {"engine": row.engine})
        mlflow_runs.log_metrics(mlflow, run_id, row.metrics())
        mlflow.set_terminated(run_id)
