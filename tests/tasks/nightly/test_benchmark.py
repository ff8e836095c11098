"""A champion of other features is measured on its own windows of the same rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_code.artifacts import ArtifactStore
from model_code.benchmark import measure, timing
from model_code.benchmark.context import window_context
from model_code.benchmark.measure import Windows
from model_code.engines.onnxruntime_engine import OnnxRuntimeFloat32
from model_code.engines.protocol import check_windows
from model_code.errors import EngineError
from model_code.features.dataset import FeatureTable
from model_code.features.windows import gather, valid_ends
from model_code.settings import ANCHOR_ROW, CHAMPION_ROW, REFERENCE_ENGINE, BenchmarkSpec
from tasks.nightly import benchmark as benchmark_stage
from tasks.nightly.benchmark import _compared, _Loaded, _own_windows
from tasks.nightly.records import Champion
from tests.support.benchmark import row_of
from tests.support.serving import engine, weights, windows, write_graph
from tests.tasks.nightly.conftest import Build

SPEC = BenchmarkSpec(
    warmup=1, requests=6, rounds=3, batches=(1, 8), throughput_rounds=1,
    open_loop_hz=1000, open_loop_requests=3,
)  # fmt: skip


class Knows:
    """Recognises the windows of one table and answers their labels; of others it knows nothing."""

    def __init__(self, table: FeatureTable, ends: NDArray[np.int64]) -> None:
        windows = gather(table.features_NF, ends)
        labels = np.asarray(table.label_N[ends])
        self.known = {x.tobytes(): int(y) for x, y in zip(windows, labels, strict=True)}
        self.unknown = 0
        self.rng = np.random.default_rng(3)

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(x_BTF)
        answers = [self.known.get(x.tobytes()) for x in x_BTF]
        self.unknown += answers.count(None)
        logit_B = [
            self.rng.normal() if answer is None else 4.0 * answer - 2.0 for answer in answers
        ]
        return np.stack([np.zeros(len(x_BTF)), logit_B], axis=1).astype(np.float32)


def measured(
    table: FeatureTable,
    ends: NDArray[np.int64],
    champion: Knows,
    windows_of: dict[str, Windows] | None,
) -> float | None:
    run = measure.benchmark(
        {REFERENCE_ENGINE: Knows(table, ends), CHAMPION_ROW: champion},
        lambda start, stop: gather(table.features_NF, ends[start:stop]),
        np.asarray(table.label_N[ends]),
        window_context(table, ends),
        SPEC,
        windows_of=windows_of,
    )
    return row_of(run.result, CHAMPION_ROW).quality.auc


def test_a_champion_perfect_on_its_own_features_is_measured_as_perfect(
    build: Build, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "ceilings", lambda _: {})
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)
    candidate, champions = (build(name, name, rows=2000) for name in ("paired", "solo"))
    rows, own = (FeatureTable.open(store, table) for table in (candidate, champions))
    ends = valid_ends(rows.segment_N, rows.label_N)
    assert rows.label_N[ends].sum() > 100

    champion = Knows(own, ends)
    own_windows = _own_windows(rows, ends, own)
    assert measured(rows, ends, champion, {CHAMPION_ROW: own_windows}) == 1.0
    assert champion.unknown == 0, "it was also timed on its own windows only"

    on_the_candidates = measured(rows, ends, champion, None)
    assert on_the_candidates is not None
    assert 0.35 < on_the_candidates < 0.65
    assert champion.unknown > len(ends)


@pytest.mark.parametrize(
    ("change", "name"), [({"late_ns": 1000}, "timestamp_N"), ({"rows": 401}, "timestamp_N")]
)
def test_a_table_of_other_rows_is_refused(
    build: Build, store: ArtifactStore, change: dict[str, int], name: str
) -> None:
    rows = FeatureTable.open(store, build("paired", "paired"))
    ends = valid_ends(rows.segment_N, rows.label_N)
    other = FeatureTable.open(store, build("other", "solo", **change))
    with pytest.raises(EngineError, match=f"other rows: {name} differs"):
        _own_windows(rows, ends, other)


def test_a_table_of_other_labels_is_refused(build: Build, store: ArtifactStore) -> None:
    rows = FeatureTable.open(store, build("paired", "paired"))
    ends = valid_ends(rows.segment_N, rows.label_N)
    other = FeatureTable.open(store, build("other", "solo"))
    other = replace(other, label_N=1 - other.label_N)
    with pytest.raises(EngineError, match="other rows: label_N differs"):
        _own_windows(rows, ends, other)


@pytest.fixture
def champion(tmp_path: Path, store: ArtifactStore) -> Champion:
    """A version with its engine and its graph."""
    engine(tmp_path / "engine", weights(1))
    write_graph(tmp_path / "model.onnx", weights(1))
    engine_ref, graph_ref = (
        store.put(path) for path in (tmp_path / "engine", tmp_path / "model.onnx")
    )
    return Champion(version="4", onnx=graph_ref, engine=engine_ref)


def fail(*_: object) -> None:
    raise RuntimeError("CUDA driver version is insufficient")


@pytest.mark.parametrize(
    ("broken", "kept", "same_engine", "note"),
    [
        (False, True, True, "version 4, onnxruntime-fp32"),
        (True, True, False,
         "version 4, ONNX graph (its engine failed: load: RuntimeError: CUDA driver version is "
         "insufficient): its latency is not comparable"),
        (False, False, False,
         "version 4, ONNX graph (its engine is not in the serving repository): its latency is not "
         "comparable"),
    ],
)  # fmt: skip
def test_a_champion_whose_engine_cannot_be_loaded_is_measured_through_its_graph(
    broken: bool,
    kept: bool,
    same_engine: bool,
    note: str,
    champion: Champion,
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if broken:
        monkeypatch.setattr(OnnxRuntimeFloat32, "load", fail)
    version = champion if kept else champion.model_copy(update={"engine": None})
    found = _Loaded(store)
    found.add_version(CHAMPION_ROW, version, windows(8))
    fact = found.facts[CHAMPION_ROW]
    assert (fact.version, fact.same_engine, fact.note) == (4, same_engine, note)
    assert found.unavailable == {}
    answers = found.predictors[CHAMPION_ROW].predict(windows(8))
    np.testing.assert_allclose(answers, windows(8).mean(axis=1) @ weights(1), rtol=1e-4)


def test_a_champion_whose_graph_fails_too_has_a_reason(
    champion: Champion, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRuntimeFloat32, "load", fail)
    monkeypatch.setattr(benchmark_stage, "open_graph", fail)
    found = _Loaded(store)
    found.add_version(CHAMPION_ROW, champion, windows(8))
    assert found.predictors == {}
    reason = "failed: load: RuntimeError: CUDA driver version is insufficient"
    assert found.unavailable == {CHAMPION_ROW: reason}


def test_an_anchor_is_measured_beside_the_champion_unless_it_is_the_champion(
    champion: Champion, store: ArtifactStore
) -> None:
    older = champion.model_copy(update={"version": "2", "engine": None})
    with_older = champion.model_copy(update={"anchor": older})
    assert list(_compared(with_older, None, None)) == [CHAMPION_ROW, ANCHOR_ROW]
    itself = champion.model_copy(update={"anchor": champion})
    assert list(_compared(itself, None, None)) == [CHAMPION_ROW]
    assert _compared(None, None, None) == {}
    found = _Loaded(store)
    found.add_version(ANCHOR_ROW, older, windows(8))
    note = "version 2, ONNX graph (an earlier champion): its latency is not comparable"
    assert found.facts[ANCHOR_ROW].note == note
