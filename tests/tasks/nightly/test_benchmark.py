"""A champion of other features is measured on its own windows of the same rows."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_code.artifacts import hash_path
from model_code.benchmark import measure, timing
from model_code.benchmark.context import window_context
from model_code.benchmark.measure import Windows
from model_code.engines.protocol import check_windows
from model_code.errors import EngineError
from model_code.features.dataset import FeatureTable
from model_code.features.windows import gather, valid_ends
from model_code.settings import CHAMPION_ROW, REFERENCE_ENGINE, BenchmarkSpec
from tasks.nightly.benchmark import _own_windows
from tests.support.benchmark import row_of
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
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "ceilings", lambda _: {})
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)
    candidate, champions = (build(name, name, rows=2000) for name in ("paired", "solo"))
    rows, own = (FeatureTable.load(table.open()) for table in (candidate, champions))
    ends = valid_ends(rows.segment_N, rows.label_N)
    assert rows.label_N[ends].sum() > 100

    champion = Knows(own, ends)
    windows = _own_windows(rows, ends, champions)
    assert measured(rows, ends, champion, {CHAMPION_ROW: windows}) == 1.0
    assert champion.unknown == 0, "it was also timed on its own windows only"

    on_the_candidates = measured(rows, ends, champion, None)
    assert on_the_candidates is not None
    assert 0.35 < on_the_candidates < 0.65
    assert champion.unknown > len(ends)


@pytest.mark.parametrize(
    ("change", "name"), [({"late_ns": 1000}, "timestamp_N"), ({"rows": 401}, "timestamp_N")]
)
def test_a_table_of_other_rows_is_refused(build: Build, change: dict[str, int], name: str) -> None:
    rows = FeatureTable.load(build("paired", "paired").open())
    ends = valid_ends(rows.segment_N, rows.label_N)
    other = build("other", "solo", **change)
    with pytest.raises(EngineError, match=f"other rows: {name} differs"):
        _own_windows(rows, ends, other)


def test_a_table_of_other_labels_is_refused(build: Build) -> None:
    rows = FeatureTable.load(build("paired", "paired").open())
    ends = valid_ends(rows.segment_N, rows.label_N)
    other = build("other", "solo")
    path = Path(other.path) / "label.npy"
    np.save(path, 1 - np.load(path))
    changed = other.model_copy(update={"sha256": hash_path(Path(other.path))})
    with pytest.raises(EngineError, match="other rows: label_N differs"):
        _own_windows(rows, ends, changed)
