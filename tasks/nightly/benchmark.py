"""Stage `benchmark`: every built engine, the champion and the anchor, measured side by side.

Shapes: B batch, T = 64 steps, F = 16 features, N test windows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TaskID

from infra.triton.benchmark_row import served, unservable
from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.benchmark import measure
from model_code.benchmark.context import window_context
from model_code.benchmark.gate import choose, judge_run
from model_code.benchmark.goals import Goals
from model_code.benchmark.memory import gpu_mib, peak_mib
from model_code.benchmark.reports.report import publish
from model_code.benchmark.result import BenchmarkRun, EngineFacts, Other
from model_code.benchmark.roster import FAILED, failure
from model_code.benchmark.timing import MEASURE
from model_code.engines.onnxruntime_engine import open_graph
from model_code.engines.protocol import Predictor
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import EngineError
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.features.windows import gather
from model_code.machine import physical_cores
from model_code.repository.terms import Terms
from model_code.settings import (
    ANCHOR_ROW,
    BOOSTING_ROW,
    CHAMPION_ROW,
    MAX_BATCH_SIZE,
    REFERENCE_ENGINE,
    TRITON_ROW,
    BenchmarkSpec,
    ServingSpec,
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

LOAD = "load"
WARM_UP = "warm up"


def _facts(run: RunRef, measured: Measured) -> str:
    rows = BenchmarkRun.load(run.store.open(measured.folder)).result.rows
    fastest = min(rows, key=lambda row: row.p50_ms)
    return (
        f"{len(rows)} engines; fastest {fastest.engine}: p50 {fastest.p50_ms:.3f} ms, "
        f"p99 {fastest.p99_ms:.3f} ms"
    )


@stage("benchmark", facts=_facts)
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
    anchor_table: ArtifactRef | None = None,
    terms: Terms | None = None,
    goals: Goals | None = None,
    serving: ServingSpec | None = None,
) -> Measured:
    """Measure every built engine, the champion and the anchor, interleaved, on the newest day.

    Decisions of the engines are judged at the network's `threshold`, those of the champion, the
    anchor and gradient boosting at their own. Engines of another model (`beside`) are timed only.
    A champion or anchor of other features predicts the same rows from a table of its own. An
    engine that fails has a reason instead of figures, unless it is the reference.

    Args:
        run: where it is logged.
        table: the candidate's features.
        split: its windows.
        engines: built of it.
        champion: the serving version, and with it the anchor.
        baseline: gradient boosting on the same windows.
        threshold: of the candidate's decisions.
        spec: how to measure.
        beside: engines of another model.
        champion_table: the champion's features, if they are not the candidate's.
        anchor_table: the same for the anchor.
        terms: what the candidate's figures refer to.
        goals: they choose the engine to serve through Triton; None: none is served.
        serving: how the server runs it; None: the design's.

    Raises:
        EngineError: as `measure.benchmark`.
    """
    rows, parts = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    ends = parts.test_ends
    label_N = np.asarray(rows.label_N[ends])

    def windows(start: int, stop: int) -> NDArray[np.float32]:
        return gather(rows.features_NF, ends[start:stop])

    batch_BTF = windows(0, min(MAX_BATCH_SIZE, len(ends)))
    found, others = _Loaded(run.store), _Loaded(run.store)
    for loaded, built in ((found, engines), (others, beside)):
        for engine in built:
            if engine.folder is not None:
                loaded.add(engine.name, engine.folder, batch_BTF)
            elif engine.unavailable:
                loaded.unavailable[engine.name] = engine.unavailable
    compared = _compared(champion, champion_table, anchor_table)
    windows_of: dict[str, measure.Windows] = {}
    for name, (version, own) in compared.items():
        try:
            theirs = (
                windows
                if own is None
                else _own_windows(rows, ends, FeatureTable.open(run.store, own))
            )
        except EngineError as error:
            found.unavailable[name] = failure(MEASURE, error)
            continue
        if own is not None:
            windows_of[name] = theirs
        found.add_version(name, version, theirs(0, len(batch_BTF)))
    with _progress("benchmark") as progress:
        measured = measure.benchmark(
            found.predictors,
            windows,
            label_N,
            window_context(rows, ends, parts.test_weights),
            spec,
            facts=found.facts | others.facts,
            unavailable=found.unavailable | others.unavailable,
            simulated=rows.meta.simulated,
            threshold=threshold,
            own_thresholds={BOOSTING_ROW: baseline.threshold}
            | {name: version.threshold for name, (version, _) in compared.items()},
            boosting_N=np.load(run.store.open(baseline.probability)),
            beside=others.predictors,
            windows_of={name: own for name, own in windows_of.items() if name in found.predictors},
            progress=progress,
        )
        measured = _with_versions(measured, champion, terms)
        measured = _through_triton(run, measured, engines, windows, spec, goals, serving, progress)
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


def _compared(
    champion: Champion | None, champion_table: ArtifactRef | None, anchor_table: ArtifactRef | None
) -> dict[str, tuple[Champion, ArtifactRef | None]]:
    """The earlier versions to measure, with the table of their features if it is another one."""
    if champion is None:
        return {}
    found = {CHAMPION_ROW: (champion, champion_table)}
    if champion.anchor is not None and champion.anchor.version != champion.version:
        found[ANCHOR_ROW] = (champion.anchor, anchor_table)
    return found


def _with_versions(
    measured: BenchmarkRun, champion: Champion | None, terms: Terms | None
) -> BenchmarkRun:
    """The same run, which says what its figures and those of earlier versions refer to."""

    def other(version: Champion | None) -> Other | None:
        return Other(version=int(version.version), terms=version.terms) if version else None

    known = {
        "terms": terms,
        "champion": other(champion),
        "anchor": other(champion.anchor if champion else None),
        "no_anchor": champion.no_anchor if champion else "",
    }
    return replace(measured, result=measured.result.model_copy(update=known))


def _through_triton(
    run: RunRef,
    measured: BenchmarkRun,
    engines: tuple[BuiltEngine, ...],
    windows: measure.Windows,
    spec: BenchmarkSpec,
    goals: Goals | None,
    serving: ServingSpec | None,
    progress: Callable[[str, int, int], None],
) -> BenchmarkRun:
    """The same run with a row of the engine that would be staged, behind the installed server."""
    if not spec.served or goals is None:
        return measured.without(TRITON_ROW, "excluded by the spec")
    simulated = measured.result.simulated
    verdicts = judge_run(measured, goals, simulated=simulated, pin=spec.pin)
    if not verdicts:
        return measured.without(TRITON_ROW, "no available engine that Triton can serve")
    engine = choose(measured, verdicts, spec.pin).engine
    folder = next(built.folder for built in engines if built.name == engine)
    row = measured.result.row(engine)
    reason, step = unservable(run.settings, engine), LOAD
    if reason is not None or folder is None or row is None:
        return measured.without(TRITON_ROW, reason or f"{engine} was not built")
    facts = row.facts.model_copy(
        update={
            "note": f"serves {engine}, measured after the engines, not in turns with them",
            "size_mib": None,
            "peak_mib": None,
            "gpu_mib": None,
        }
    )
    try:
        with served(run.settings, engine, run.store.open(folder), serving) as server:
            step = MEASURE
            found = measure.also(
                measured, TRITON_ROW, server.predictor, windows, spec, facts, progress
            )
            batch_BTF = windows(0, min(MAX_BATCH_SIZE, len(measured.label_N)))
            return found.with_served(server.under_load(batch_BTF, spec))
    except Exception as error:
        return measured.without(TRITON_ROW, failure(step, error))


def _own_windows(rows: FeatureTable, ends: NDArray[np.int64], own: FeatureTable) -> measure.Windows:
    """An earlier version's windows of the same rows.

    Raises:
        EngineError: the other table's rows at the window ends are others.
    """
    for name in ("timestamp_N", "symbol_N", "segment_N", "label_N"):
        here_N, there_N = getattr(rows, name), getattr(own, name)
        if len(here_N) != len(there_N) or not np.array_equal(here_N[ends], there_N[ends]):
            raise EngineError(
                f"the earlier version's feature table has other rows: {name} differs",
                where=f"feature set {own.meta.spec.chosen_set}",
                remedy="compute both tables again: tickline nightly --refresh",
            )
    return lambda start, stop: gather(own.features_NF, ends[start:stop])


@dataclass(frozen=True)
class _Loaded:
    """Engines that are loaded and have answered once, and why others are not."""

    store: ArtifactStore
    predictors: dict[str, Predictor] = field(default_factory=dict)
    facts: dict[str, EngineFacts] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def add(
        self, name: str, artifact: ArtifactRef, x_BTF: NDArray[np.float32], note: str = ""
    ) -> bool:
        """Load an engine; measure the memory added by loading it and by its largest batch.

        Returns:
            Whether it answers.

        Raises:
            Exception: the reference's own.
        """
        step = LOAD

        def opened() -> Predictor:
            nonlocal step
            predictor = ENGINES[sidecar.engine].load(folder)
            step = WARM_UP
            predictor.predict(x_BTF)
            return predictor

        try:
            folder = self.store.open(artifact)
            sidecar = EngineSidecar.load(folder)
            (predictor, on_gpu), peak = peak_mib(partial(gpu_mib, opened))
            fact = EngineFacts(
                precision=sidecar.precision,
                device=ENGINES[sidecar.engine].device,
                flops=sidecar.flops,
                size_mib=(folder / sidecar.file).stat().st_size / 2**20,
                peak_mib=peak,
                gpu_mib=on_gpu if ENGINES[sidecar.engine].device == "cuda" else None,
                note=f"{note}, {sidecar.engine}" if note else "",
                sha256=sidecar.sha256,
            )
        except Exception as error:
            if name == REFERENCE_ENGINE:
                raise
            self.unavailable[name] = failure(step, error)
            return False
        self.predictors[name], self.facts[name] = predictor, fact
        return True

    def add_version(self, name: str, version: Champion, x_BTF: NDArray[np.float32]) -> None:
        """Load an earlier version: its engine, or its graph if the engine is not here or fails."""
        number, note = int(version.version), f"version {version.version}"
        why = "its engine is not in the serving repository"
        if version.engine is not None:
            if self.add(name, version.engine, x_BTF, note):
                self.facts[name] = self.facts[name].model_copy(update={"version": number})
                return
            why = f"its engine {self.unavailable.pop(name)}"
        if name == ANCHOR_ROW:
            why = "an earlier champion"
        step = LOAD
        try:
            predictor = open_graph(self.store.open(version.onnx), physical_cores())
            step = WARM_UP
            predictor.predict(x_BTF)
        except Exception as error:
            self.unavailable[name] = failure(step, error)
            return
        self.predictors[name] = predictor
        self.facts[name] = EngineFacts(
            note=f"{note}, ONNX graph ({why}): its latency is not comparable",
            version=number,
            same_engine=False,
        )


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
    failed = {
        name: reason
        for name, reason in measured.result.unavailable.items()
        if reason.startswith(FAILED)
    }
    for name in (*(row.engine for row in measured.result.rows), *failed):
        run_id = mlflow_runs.nested(mlflow, run.settings, run.mlflow_run_id, f"engine {name}")
        mlflow_runs.log_params(mlflow, run_id, {"engine": name})
        row = measured.result.row(name)
        if row is not None:
            mlflow_runs.log_metrics(mlflow, run_id, row.metrics())
            mlflow.set_terminated(run_id)
            continue
        mlflow_runs.set_tags(mlflow, run_id, {mlflow_runs.ERROR_TAG: failed[name]})
        mlflow.set_terminated(run_id, "FAILED")
