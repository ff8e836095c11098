"""A small search on simulated ticks, interrupted by nothing and resumed with more trials."""

import datetime as dt
import re
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from rich.console import Console

from flows.cli.tune import tuned_tables
from flows.tune import trials_at_a_time, tune
from model_code.errors import ConfigError
from model_code.features import shard
from model_code.settings import NightlySpec, Settings
from model_code.settings.changes import from_yaml
from model_code.settings.tuning import TuneSpec, search_space
from tasks.runs import mlflow_runs
from tests.support.flow import children, parents, tiny

MARKET = "simulated:?seed=3&instruments=1&days=3&minutes=2"  # 2000-01-03 to 2000-01-05
SEARCH = TuneSpec(
    search=search_space(
        {"training.learning_rate": "5e-4..5e-3:log", "network.feed_forward": "32,48"}
    ),
    trials=2,
    folds=2,
)


def test_a_search_finds_a_specification_without_the_test_day_and_resumes(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[dt.date] = set()
    real = shard.build

    def build(day, *rest, **more):
        seen.add(day.date)
        return real(day, *rest, **more)

    monkeypatch.setattr(shard, "build", build)
    spec = tiny(MARKET)
    first = tune(spec, SEARCH)
    assert seen == {dt.date(2000, 1, 3), dt.date(2000, 1, 4)}
    assert sum(first.states.values()) == 2
    assert first.given == 0
    more = tune(spec, SEARCH.model_copy(update={"trials": 3}))
    assert more.study == first.study
    assert sum(more.states.values()) == 3
    assert {row.number for row in first.best} <= {row.number for row in more.best}
    assert len(tune(spec, SEARCH).best) == len(more.best)  # enough: no trial is added

    # the best, as a night can start it
    assert more.spec_path is not None
    best = NightlySpec.model_validate(from_yaml(Path(more.spec_path).read_text()))
    assert best.training.learning_rate == more.best[0].params["training.learning_rate"]
    assert best.model_copy(update={"training": spec.training, "network": spec.network}) == spec
    assert more.best[0].auc == max(row.auc for row in more.best)
    assert all(0.0 < score < 1.0 for row in more.best for score in row.folds)
    assert len(more.best[0].folds) == 2

    # in MLflow: a run of each command, its trials nested in it
    settings = home.model_copy(update={"mlflow_experiment": "tune"})
    runs = parents(settings)
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert {run.data.tags["tickline.study"] for run in runs} == {more.study}
    assert set(children(settings, runs[0].info.run_id)) == {"trial 0", "trial 1"}
    assert set(children(settings, runs[1].info.run_id)) == {"trial 2"}
    mlflow = MlflowClient(home.tracking_uri)
    given = runs[0].inputs.dataset_inputs if runs[0].inputs else []
    assert {entry.tags[0].value for entry in given} == {"training"}
    names = {entry.path for entry in mlflow.list_artifacts(runs[1].info.run_id)}
    assert {"best.yaml", mlflow_runs.SPEC_FILE, "plots"} <= names

    # and on the terminal, in 80 columns
    console = Console(width=80, record=True)
    console.print(tuned_tables(more))
    page = console.export_text()
    assert max(map(len, page.splitlines())) <= 80
    flat = re.sub(r"\s+", " ", page)
    for piece in (
        more.study,
        "SIMULATED",
        "(as given)",
        "learning_rate",
        "tickline nightly --spec",
    ):
        assert piece in flat


@pytest.mark.slow
@pytest.mark.usefixtures("pools_know_the_server")
def test_trials_run_in_workers_and_the_first_scores_as_it_does_here(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = SEARCH.model_copy(update={"trials": 3})
    monkeypatch.setenv("TICKLINE_CLUSTER", "dask:2")
    found = tune(tiny(MARKET), search.model_copy(update={"study": "workers"}))
    assert sum(found.states.values()) == 3
    monkeypatch.delenv("TICKLINE_CLUSTER")
    here = tune(tiny(MARKET), search.model_copy(update={"trials": 1, "study": "here"}))
    given = next(row for row in found.best if row.number == 0)
    assert given.params == here.best[0].params
    assert given.folds == pytest.approx(here.best[0].folds, abs=1e-6)
    settings = home.model_copy(update={"mlflow_experiment": "tune"})
    nested = children(settings, parents(settings)[0].info.run_id)
    assert set(nested) == {"trial 0", "trial 1", "trial 2"}
    assert all("mean_auc" in run.data.metrics for run in nested.values())


def test_how_many_trials_run_at_a_time(home: Settings) -> None:
    def on(cluster: str | None) -> Settings:
        return home.model_copy(update={"cluster": cluster})

    assert trials_at_a_time(on(None), None) == 1
    assert trials_at_a_time(on("ray:3"), None) == 3
    assert trials_at_a_time(on("ray:3"), 2) == 2
    assert trials_at_a_time(on("tcp://h:8786"), 8) == 8
    with pytest.raises(ConfigError, match="how many trials to run at a time is not known"):
        trials_at_a_time(on("tcp://h:8786"), None)
    with pytest.raises(ConfigError, match="2 trials at a time need workers"):
        trials_at_a_time(on(None), 2)


def test_a_wrong_key_is_refused_before_any_computation(home: Settings) -> None:
    wrong = SEARCH.model_copy(update={"search": search_space({"training.epoch": "1..3"})})
    with pytest.raises(ConfigError, match=r"no key is named training\.epoch"):
        tune(tiny(MARKET), wrong)
    assert not (home.home / "artifacts").exists()
