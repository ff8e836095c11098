"""A backfill of past dates, two at a time, of which one has no earlier date."""

import datetime as dt
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import FlowRunSort

from flows.backfill import backfill, dates_to_judge
from flows.runs.backfill_night import EXPERIMENT
from model_code.errors import ConfigError
from model_code.settings import NightlySpec, Settings
from tasks.runs import mlflow_runs
from tests.support.flow import QUICK_BENCHMARK, states_of, tiny

MARKET = "simulated:?seed=3&instruments=1&days=3&minutes=2"
FIRST = dt.date(2000, 1, 3)  # of the simulated market
NEXT, LAST = FIRST + dt.timedelta(days=1), FIRST + dt.timedelta(days=2)
GOALS = "goals: [{name: finite, metric: non_finite, kind: threshold, maximum: 0}]\n"


def spec_for(folder: Path) -> NightlySpec:
    goals = folder / "goals.yaml"
    goals.write_text(GOALS)
    quick = QUICK_BENCHMARK.model_copy(update={"engines": ("onnxruntime-fp32",)})
    return tiny(MARKET, goals=str(goals), benchmark=quick)


def test_each_date_is_judged_and_nothing_is_registered(
    home: Settings, tmp_path: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    spec = spec_for(tmp_path)
    nights = backfill(spec, FIRST, LAST, parallel=2)
    assert [night.date for night in nights] == [str(NEXT), str(LAST)]
    assert all(night.verdict == "no baseline" and night.auc is not None for night in nights)
    mlflow = MlflowClient(home.tracking_uri)
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = mlflow.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(run.info.run_name for run in parents) == [str(NEXT), str(LAST)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not mlflow.search_registered_models()
    assert not home.staging_repository.exists()

    again = backfill(spec, LAST, LAST)  # its stages come back Cached: the same, measurement too
    assert again[0].model_dump(exclude={"mlflow_run_id"}) == nights[1].model_dump(
        exclude={"mlflow_run_id"}
    )
    assert not (home.home / "nightly.holder").exists()
    assert mlflow_runs.experiment_id(mlflow, home) != experiment.experiment_id


@pytest.mark.slow
def test_dates_run_in_the_workers_of_a_cluster_with_the_same_results(
    home: Settings, tmp_path: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    monkeypatch.setenv("TICKLINE_CLUSTER", "dask:2")
    spec = spec_for(tmp_path)
    nights = backfill(spec, FIRST, LAST)
    assert [night.failure for night in nights] == [None, None]
    monkeypatch.delenv("TICKLINE_CLUSTER")
    here = backfill(spec, LAST, LAST)[0]  # finds the stages of the worker's date
    assert here.model_dump(exclude={"mlflow_run_id"}) == nights[1].model_dump(
        exclude={"mlflow_run_id"}
    )
    with get_client(sync_client=True) as client:
        (newest,) = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["backfill night"])),
            sort=FlowRunSort.START_TIME_DESC,
            limit=1,
        )
    states = states_of(newest.id)
    assert states["benchmark"] == "Cached"


def test_a_range_without_dates_is_an_error(home: Settings) -> None:
    with pytest.raises(ConfigError, match="no date to backfill") as caught:
        dates_to_judge.fn(tiny(MARKET), dt.date(1999, 1, 1), FIRST)
    assert str(FIRST) in caught.value.remedy
