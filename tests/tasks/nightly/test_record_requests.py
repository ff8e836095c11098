"""What is recorded for the promotion."""

from pathlib import Path

import numpy as np
import pytest

from model_code.features.dataset import FeatureTable
from model_code.features.split import PartReport, Split, SplitReport
from model_code.features.windows import gather, spread, valid_ends
from model_code.repository.requests import REPLAY_FILE, Replay
from model_code.settings import CHAMPION_ROW, REFERENCE_ENGINE
from tasks.caching.stage import RunRef
from tasks.nightly.record_requests import POSITIVES, RECORDED, record_requests
from tasks.nightly.records import BuiltEngine, Judged, Measured, Registered, SplitWindows
from tests.support.benchmark import benchmark_run
from tests.support.market import DATES
from tests.support.serving import engine, weights
from tests.tasks.nightly.conftest import Build

NAME = "onnxruntime-fp32"
JUDGED = Judged(engine=NAME, reason="", verdict_json="{}", verdicts={})
VERSION = Registered(name="m", version="5", alias="challenger")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("others", [False, True])
def test_windows_of_a_champion_of_other_features_are_recorded_of_the_same_rows(
    build: Build, run: RunRef, tmp_path: Path, others: bool, weighted: bool
) -> None:
    table, champions = (build(name, name) for name in ("paired", "solo"))
    rows, own = (FeatureTable.open(run.store, found) for found in (table, champions))
    ends = valid_ends(rows.segment_N, rows.label_N)
    part = PartReport(
        candidates=1, purged=0, embargoed=0, kept=1, windows=1, label_rate=0.5, first="", last=""
    )
    report = SplitReport(
        test_date=DATES[0], validation_from="", train=part, validation=part, test=part
    )
    # as of a day sampled by class: every other window stands for many
    many_B = np.where(np.arange(len(ends) - 80) % 2, 1e6, 1.0)
    weight_B = many_B if weighted else None
    Split(ends[:50], ends[50:80], ends[80:], report, None, weight_B).save(tmp_path / "split")
    answer_N = np.linspace(0.1, 0.9, len(ends) - 80)
    (tmp_path / "measured").mkdir()
    benchmark_run(
        np.asarray(rows.label_N[ends[80:]]),
        {REFERENCE_ENGINE: answer_N, NAME: answer_N, CHAMPION_ROW: answer_N},
        {REFERENCE_ENGINE: np.ones(40), NAME: np.ones(40), CHAMPION_ROW: np.ones(40)},
        own_thresholds={CHAMPION_ROW: 0.85},
    ).save(tmp_path / "measured")
    engine(tmp_path / "engine", weights(1))

    found = record_requests.fn(
        run,
        table,
        SplitWindows(windows=run.store.put(tmp_path / "split"), summary={}),
        (
            BuiltEngine(
                name=NAME,
                folder=run.store.put(tmp_path / "engine"),
                unavailable=None,
                mlflow_run_id=None,
            ),
        ),
        Measured(
            folder=run.store.put(tmp_path / "measured"),
            champion_version="4",
            champion_table=champions if others else None,
        ),
        JUDGED,
        VERSION,
    )
    assert found is not None
    replay = Replay.load(run.store.open(found) / REPLAY_FILE)
    taken = ends[80:][spread(np.arange(len(ends) - 80), RECORDED, weight_B)]
    assert not weighted or len(taken) == (len(ends) - 80) // 2
    np.testing.assert_array_equal(replay.x_RTF, gather(rows.features_NF, taken))
    np.testing.assert_array_equal(replay.label_R, rows.label_N[taken])
    is_positive = answer_N >= 0.85
    weight_P = None if weight_B is None else weight_B[is_positive]
    positive = ends[80:][is_positive]
    assert 0 < len(positive) < len(taken)
    chosen = spread(np.arange(len(positive)), POSITIVES, weight_P)
    assert replay.positive_x_PTF is not None
    np.testing.assert_array_equal(replay.positive_x_PTF, gather(rows.features_NF, positive[chosen]))
    if not others:
        assert replay.champion_positive_x_PTF is None
        assert (replay.champion_version, replay.champion_x_RTF) == (None, None)
        return
    assert replay.champion_version == 4
    assert replay.champion_x_RTF is not None
    np.testing.assert_array_equal(replay.champion_x_RTF, gather(own.features_NF, taken))
    assert not np.array_equal(replay.champion_x_RTF, replay.x_RTF)
    assert replay.champion_positive_x_PTF is not None
    np.testing.assert_array_equal(
        replay.champion_positive_x_PTF, gather(own.features_NF, positive[chosen])
    )
