"""A small walk forward on simulated ticks: dates, cached fits, what MLflow has, refusals."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import FlowRunSort

from flows.walkforward import models_of, test_dates, walkforward
from model_code.benchmark.reports.walkforward_report import last_line
from model_code.errors import DataError
from model_code.features import shard
from model_code.features.dataset import FeatureTable
from model_code.settings import MlpSpec, NetworkSpec, NightlySpec, Settings, TrainingSpec
from model_code.settings.walkforward import WalkforwardSpec
from tests.support.flow import children, parents, paths, states_of, tiny

MARKET = "simulated:?seed=3&instruments=2&days=3&minutes=2"  # 2000-01-03 to 2000-01-05
QUICK: dict[str, object] = {
    "network": MlpSpec(hidden=16, layers=1),  # all windows of a date are predicted
    "training": TrainingSpec(epochs=1, windows_per_epoch=512),
}
DATES = [dt.date(2000, 1, day) for day in range(1, 12)]

test_dates.__test__ = False  # type: ignore[attr-defined]  # a function of the flow, not a test


def walk_spec(**changes: object) -> WalkforwardSpec:
    values: dict[str, object] = {
        "night": tiny(MARKET, **QUICK), "first_test": 0.0, "tuning_trials": 2, "seeds": 2,
    }  # fmt: skip
    return WalkforwardSpec(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dates", "share", "first"),
    [(11, 0.5, 6), (2, 0.5, 1), (2, 0.0, 1), (11, 1.0, 10), (3, 0.9, 2)],
)
def test_test_dates_begin_at_the_share_and_never_with_the_first(
    dates: int, share: float, first: int
) -> None:
    assert test_dates(DATES[:dates], share) == DATES[first:dates]


def test_the_models_of_a_night_begin_with_its_network() -> None:
    spec = NightlySpec()
    assert [name for name, _, _ in models_of(spec)] == ["blend", "mlp"]
    assert models_of(spec)[0] == ("blend", spec.network, spec.training)
    design = NightlySpec(network=NetworkSpec())
    assert models_of(design) == (("design", design.network, design.training),)


def test_every_date_is_predicted_by_the_dates_before_it_and_fits_are_kept(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = walk_spec()
    found = walkforward(spec)
    judgement = found.judgement
    assert judgement.dates == ("2000-01-04", "2000-01-05")
    assert [row.name for row in judgement.rows] == [
        "mlp", "logistic", "base rate", "tuned boosting",
        "mlp solo", "tuned boosting solo",
    ]  # fmt: skip
    assert judgement.rows[0].against == "tuned boosting"
    assert judgement.rows[4].against == "tuned boosting solo"
    assert judgement.windows > 2000  # all of both dates, not the night's 256
    assert judgement.row("tuned boosting").auc > 0.6
    assert len(found.seed_aucs) == 2
    assert len(set(found.seed_aucs)) == 2
    assert len(found.shuffled_aucs) == 5
    assert not found.leaks
    assert 0 < found.delay_ms < 100
    assert found.newest == "2000-01-05"

    # the same again: every fit is cached, the figures are the same
    capsys.readouterr()
    again = walkforward(spec)
    assert again == found
    printed = capsys.readouterr().out
    assert "Completed fit" not in printed
    assert printed.count("Cached    fit") == 2 * 6 + 1 + 1

    settings = home.model_copy(update={"mlflow_experiment": "walkforward"})
    run = parents(settings)[0]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["quality/auc"] == judgement.rows[0].auc
    nested = children(settings, run.info.run_id)
    assert {row.name for row in judgement.rows} <= set(nested)
    assert (
        nested["tuned boosting"].data.metrics["quality/auc"] == judgement.row("tuned boosting").auc
    )
    assert nested["tuned boosting"].data.params["inputs"] == "paired"
    mlflow = MlflowClient(home.tracking_uri)
    assert paths(mlflow, run.info.run_id, "plots") == {"plots/auc.png", "plots/calibration.png"}
    text = Path(mlflow.download_artifacts(run.info.run_id, "walkforward.md")).read_text()
    assert text.strip().endswith(last_line(found))
    stored = json.loads(
        Path(mlflow.download_artifacts(run.info.run_id, "walkforward.json")).read_text()
    )
    assert stored["judgement"]["windows"] == judgement.windows


def small(**changes: object) -> WalkforwardSpec:
    values: dict[str, object] = {"seeds": 1, "also_solo": False, "shuffled": False, "delay_ms": 1.0}
    return walk_spec(**(values | {"tuning_trials": 1} | changes))


def planted(monkeypatch: pytest.MonkeyPatch, change) -> None:
    """Change the columns of every instrument-day after they are built."""
    real = shard.build

    def build(day, path, spec, out, **how):
        meta = real(day, path, spec, out, **how)
        change(out, meta)
        return meta

    monkeypatch.setattr(shard, "build", build)


def test_a_feature_that_contains_the_label_shows_as_an_auc_near_1(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leak(out: Path, _: shard.ShardMeta) -> None:
        features_NF = np.load(out / "features.npy")
        features_NF[:, 7] = np.load(out / "label.npy")
        np.save(out / "features.npy", features_NF)

    planted(monkeypatch, leak)
    found = walkforward(small())
    assert found.judgement.row("tuned boosting").auc > 0.99
    assert found.judgement.row("logistic").auc > 0.99


def test_a_date_of_one_class_is_skipped_with_a_note_and_none_left_is_an_error(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[dt.date] = [dt.date(2000, 1, 5)]

    def silence(out: Path, meta: shard.ShardMeta) -> None:
        if meta.date in lost:
            np.save(out / "label.npy", np.zeros(meta.rows, np.int8))

    planted(monkeypatch, silence)
    found = walkforward(small())
    assert found.judgement.dates == ("2000-01-04",)
    (note,) = found.skipped
    assert note.startswith("2000-01-05 skipped: the test part has")
    lost.append(dt.date(2000, 1, 4))
    # other ticks, so that the features are computed again
    other = tiny(MARKET.replace("seed=3", "seed=4"), **QUICK)
    with pytest.raises(DataError, match="none of 2 test dates can be judged; 2000-01-05 skipped"):
        walkforward(small(night=other))


@pytest.mark.slow
def test_fits_run_in_workers_and_are_found_again_here(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_CLUSTER", "dask:2")
    spec = small(first_test=0.0)
    found = walkforward(spec)
    assert len(found.judgement.dates) == 2
    monkeypatch.delenv("TICKLINE_CLUSTER")
    assert walkforward(spec).judgement == found.judgement
    with get_client(sync_client=True) as client:
        (newest,) = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["walkforward"])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=1,
        )
    fits = {name: state for name, state in states_of(newest.id).items() if "fit " in name}
    assert len(fits) >= 8  # four models on two dates
    assert set(fits.values()) == {"Cached"}


def test_one_date_is_not_enough(home: Settings) -> None:
    with pytest.raises(DataError, match="nothing to train on before the test date"):
        walkforward(small(night=tiny(MARKET.replace("days=3", "days=1"), **QUICK)))


def test_a_split_that_sees_the_test_date_is_refused_before_any_fit(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_code.features.split import split as real

    def careless(table: FeatureTable, spec, date):
        chosen = real(table, spec, date)
        chosen.train_ends[-1] = chosen.test_ends[0]
        return chosen

    monkeypatch.setattr("tasks.nightly.split.choose_windows", careless)
    with pytest.raises(DataError, match="labels of training windows reach to"):
        walkforward(small())
