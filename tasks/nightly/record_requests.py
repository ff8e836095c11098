"""Stage `record requests`: golden and recorded requests, drift, and what live is compared with.

Shapes: R requests, T = 64 steps, F = 16 features.
"""

import json

import numpy as np
from numpy.typing import NDArray

from model_code.artifacts import ArtifactRef
from model_code.benchmark.result import BenchmarkRun
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import GateError
from model_code.features.dataset import FeatureTable
from model_code.features.definition import names
from model_code.features.drift import drift
from model_code.features.split import Split
from model_code.features.windows import gather, spread
from model_code.live.feedback.reference import LiveReference
from model_code.repository.requests import DRIFT_FILE, GOLDEN_FILE, REPLAY_FILE, GoldenSet, Replay
from model_code.settings import CHAMPION_ROW
from model_code.training.threshold import decide
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import BuiltEngine, Judged, Measured, Registered, SplitWindows

RECORDED = 512
POSITIVES = 64  # of the champion; of rare ones the evenly spaced windows have few
GOLDEN = 16
# of logits: kernels round differently on other machines, more so at reduced precision
TOLERANCE = {"fp32": 1e-3}
TOLERANCE_REDUCED = 5e-2


@stage("record requests")
def record_requests(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    engines: tuple[BuiltEngine, ...],
    measured: Measured,
    judged: Judged,
    registered: Registered | None,
) -> ArtifactRef | None:
    """Record evenly spaced windows of the newest day with the benchmark's answers.

    Windows on which the champion decides true are recorded too: shadow judges these apart.

    Of a test part sampled by class they are spaced evenly in the day's windows, as requests are.

    If the champion sees other features, its own windows of the same rows are recorded, too: shadow
    and canary send each version its own.

    Returns:
        The folder with requests, drift and the reference of live decisions; None if the candidate
        was not registered.
    """
    if registered is None:
        return None
    rows, parts = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    chosen = next(engine for engine in engines if engine.name == judged.engine)
    if chosen.folder is None:
        raise GateError(f"the gate chose {judged.engine}, which was not built")
    folder = run.store.open(chosen.folder)
    sidecar = EngineSidecar.load(folder)
    benchmark = BenchmarkRun.load(run.store.open(measured.folder))
    taken_R = spread(np.arange(len(parts.test_ends)), RECORDED, parts.test_weights)
    x_RTF = gather(rows.features_NF, parts.test_ends[taken_R])
    positive_P = _positives(benchmark, parts)
    champion_version = champion_x_RTF = champion_positive_x_PTF = None
    if measured.champion_table is not None and measured.champion_version is not None:
        champion_version = int(measured.champion_version)
        own = FeatureTable.open(run.store, measured.champion_table)
        champion_x_RTF = gather(own.features_NF, parts.test_ends[taken_R])
        champion_positive_x_PTF = gather(own.features_NF, parts.test_ends[positive_P])
    predictor = ENGINES[judged.engine].load(folder)
    tolerance = TOLERANCE.get(sidecar.precision, TOLERANCE_REDUCED)
    golden = GoldenSet.record(
        predictor.predict, x_RTF[spread(np.arange(len(x_RTF)), GOLDEN)], tolerance
    )
    psi_by_feature = drift(
        np.asarray(rows.features_NF[parts.train_ends]),
        np.asarray(rows.features_NF[parts.test_ends]),
        names(rows.meta.spec.chosen_set),
        parts.test_weights,
    )
    with run.store.scratch() as scratch:
        out = scratch / "requests"
        out.mkdir()
        golden.save(out / GOLDEN_FILE)
        Replay(
            x_RTF=x_RTF,
            probability_R=benchmark.probability_N[judged.engine][taken_R],
            label_R=benchmark.label_N[taken_R].astype(np.int8),
            champion_version=champion_version,
            champion_x_RTF=champion_x_RTF,
            positive_x_PTF=gather(rows.features_NF, parts.test_ends[positive_P]),
            champion_positive_x_PTF=champion_positive_x_PTF,
        ).save(out / REPLAY_FILE)
        LiveReference.of(
            np.asarray(rows.features_NF[parts.train_ends]),
            np.asarray(rows.timestamp_N[parts.train_ends]),
            names(rows.meta.spec.chosen_set),
            rows.meta.spec,
        ).save(out)
        (out / DRIFT_FILE).write_text(json.dumps(psi_by_feature, indent=2) + "\n")
        return run.store.put(out)


def _positives(benchmark: BenchmarkRun, parts: Split) -> NDArray[np.intp]:
    """Evenly spaced test windows on which the champion decides true."""
    probability_N = benchmark.probability_N.get(CHAMPION_ROW)
    if probability_N is None:
        return np.empty(0, np.intp)
    found_P = np.flatnonzero(decide(probability_N, benchmark.result.threshold_of(CHAMPION_ROW)))
    weights = None if parts.test_weights is None else parts.test_weights[found_P]
    return found_P[spread(np.arange(len(found_P)), POSITIVES, weights)] if len(found_P) else found_P
