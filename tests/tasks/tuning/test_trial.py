"""Trials of a study: what counts, what is pruned, what is tried again after an interruption."""

from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from mlflow.entities import Run
from optuna.trial import TrialState

from model_code.artifacts import ArtifactRef
from model_code.errors import ConfigError, DataError
from model_code.features.dataset import FeatureTable
from model_code.features.folds import Fold
from model_code.settings import MlpSpec, NightlySpec, Settings
from model_code.settings.changes import from_yaml
from model_code.settings.tuning import TuneSpec, search_space
from tasks.caching.stage import RunRef
from tasks.runs import mlflow_runs
from tasks.tuning import study as studies
from tasks.tuning import trial as trials
from tasks.tuning.report import BEST_FILE, best_path, publish

SPEC = NightlySpec(market="simulated:", network=MlpSpec())
SEARCH = TuneSpec(
    search=search_space({"training.learning_rate": "1e-4..1e-2:log", "network.hidden": "64,256"}),
    folds=2,
)
FOLDS = cast(tuple[Fold, ...], ("first", "second"))


@pytest.fixture
def bench(tmp_path: Path, mlflow_template: Path) -> trials.Bench:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    settings = Settings(home=home, mlflow_experiment="tune").resolved()
    parent = mlflow_runs.continue_or_start(
        mlflow_runs.client(settings), settings, name="tune", identity={"k": "v"}, tags={}
    )
    run = RunRef(settings=settings, mlflow_run_id=parent, flow_run_id="f")
    return trials.Bench(run, SPEC, cast(FeatureTable, None), FOLDS)


def opened(bench: trials.Bench, **how: Any) -> optuna.Study:
    return studies.open_study(bench.run.settings, SPEC, SEARCH.model_copy(update=how), "data")


def one(bench: trials.Bench, study: optuna.Study) -> str:
    trial = study.ask(studies.distributions(SEARCH))
    return trials.run_trial.fn(bench, study, trial, trial.number, lambda: None)


def nested(bench: trials.Bench) -> dict[str, Run]:
    mlflow = mlflow_runs.client(bench.run.settings)
    found = mlflow.search_runs([mlflow_runs.experiment_id(mlflow, bench.run.settings)])
    return {str(run.info.run_name): run for run in found}


def scores(monkeypatch: pytest.MonkeyPatch, *values: float | BaseException) -> None:
    """What the folds score, one after the other."""
    left = list(values)

    def score(*_: object) -> float:
        value = left.pop(0)
        if isinstance(value, BaseException):
            raise value
        return value

    monkeypatch.setattr(trials, "_score", score)


def test_the_own_values_are_tried_first_and_the_mean_over_the_folds_counts(
    bench: trials.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, 0.6, 0.7)
    study = opened(bench)
    assert one(bench, study) == "COMPLETE"
    (trial,) = studies.ranked(study)
    assert trial.params == {"training.learning_rate": 1e-3, "network.hidden": 256}
    assert trial.values == [pytest.approx(0.65)]
    run = nested(bench)["trial 0"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.learning_rate": "0.001", "network.hidden": "256"}
    assert run.data.metrics["mean_auc"] == pytest.approx(0.65)
    assert run.data.tags[trials.STATE_TAG] == "COMPLETE"
    history = mlflow_runs.client(bench.run.settings).get_metric_history(run.info.run_id, "fold_auc")
    assert [(point.step, point.value) for point in history] == [(1, 0.6), (2, 0.7)]


def test_a_trial_below_the_median_of_its_folds_is_pruned(
    bench: trials.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, *[0.7] * 10, 0.5)
    study = opened(bench)
    assert [one(bench, study) for _ in range(6)] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert len(studies.ended(study)) == 6
    assert len(studies.ranked(study)) == 5
    pruned = nested(bench)["trial 5"]
    assert pruned.data.metrics["fold_auc"] == 0.5
    assert pruned.data.tags[trials.STATE_TAG] == "PRUNED"


@pytest.mark.parametrize(
    "error", [DataError("training became unstable"), AssertionError("heads do not divide")]
)
def test_a_failed_trial_counts_and_the_search_goes_on(
    bench: trials.Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    scores(monkeypatch, 0.6, error, 0.6, 0.7)
    study = opened(bench)
    assert [one(bench, study), one(bench, study)] == ["FAIL", "COMPLETE"]
    failed, _ = studies.ended(study)
    assert failed.user_attrs[studies.ERROR] == str(error)
    assert nested(bench)["trial 0"].info.status == "FAILED"
    assert nested(bench)["trial 0"].data.tags[mlflow_runs.ERROR_TAG] == str(error)


def test_an_interrupted_trial_does_not_count_and_is_tried_again(
    bench: trials.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, 0.6, KeyboardInterrupt(), 0.6, 0.7)
    study = opened(bench)
    with pytest.raises(KeyboardInterrupt):
        one(bench, study)
    assert studies.ended(study) == []
    assert nested(bench)["trial 0"].info.status == "KILLED"
    again = opened(bench)
    assert one(bench, again) == "COMPLETE"
    first, second = again.trials
    assert first.state == TrialState.FAIL
    assert second.params == first.params


def test_what_a_killed_process_left_open_is_tried_again(
    bench: trials.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(bench)
    drawn = studies.distributions(SEARCH)
    own, other = study.ask(drawn), study.ask(drawn)
    own.set_user_attr(studies.OWNER, studies.owner(bench.run.settings))
    other.set_user_attr(studies.OWNER, "elsewhere:/home")  # shares the database
    again = opened(bench)
    states = [trial.state for trial in again.trials]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    scores(monkeypatch, 0.6, 0.7)
    one(bench, again)
    assert again.trials[2].params == own.params


def test_a_trial_of_a_killed_worker_is_repeated_in_another(
    bench: trials.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(bench)
    trial = study.ask(studies.distributions(SEARCH))
    trial.report(0.6, 1)  # then its worker was killed
    monkeypatch.setattr(trials.Bench, "opened", lambda *_: bench)
    scores(monkeypatch, 0.6, 0.7)

    def work() -> str:
        arguments = (bench.run, SPEC, cast(ArtifactRef, None), 2, study.study_name)
        return trials.run_trial_in_worker.fn(*arguments, trial._trial_id, trial.number)

    assert work() == "COMPLETE"
    assert study.trials[0].intermediate_values == {1: 0.6, 2: pytest.approx(0.65)}
    assert work() == "COMPLETE"  # nothing is left to score: it has ended
    assert len(studies.ended(study)) == 1


def test_a_resumed_study_draws_other_values(
    bench: trials.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores(monkeypatch, *[0.6] * 12)
    for _ in range(6):
        one(bench, opened(bench))  # a new process each time
    rates = {trial.params["training.learning_rate"] for trial in opened(bench).trials}
    assert len(rates) == 6


def test_a_name_that_searches_something_else_is_refused(bench: trials.Bench) -> None:
    name = opened(bench).study_name
    assert opened(bench, trials=99).study_name == name  # more trials: the same study
    assert opened(bench, folds=3).study_name != name
    opened(bench, study="mine")
    with pytest.raises(ConfigError, match="the study mine searches other values"):
        opened(bench, study="mine", folds=3)
    with pytest.raises(ConfigError, match="the study mine"):
        named = SEARCH.model_copy(update={"study": "mine"})
        studies.open_study(bench.run.settings, SPEC, named, "other data")


def test_another_database_is_used_where_one_is_set(bench: trials.Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    settings = bench.run.settings.model_copy(update={"tune_storage": f"sqlite:///{elsewhere}"})
    studies.open_study(settings, SPEC, SEARCH, "data")
    assert elsewhere.is_file()
    assert not (settings.home / "tune.db").exists()


def test_the_best_specification_and_plots_are_published(
    bench: trials.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = opened(bench)
    assert publish(bench.run, study, SPEC) is None
    scores(monkeypatch, 0.6, 0.6)
    one(bench, study)
    assert publish(bench.run, study, SPEC) is not None  # one trial has a history only
    scores(monkeypatch, 0.8, 0.9, 0.7, 0.7)
    one(bench, study)
    one(bench, study)
    path = publish(bench.run, study, SPEC)
    assert path == best_path(bench.run.settings, study.study_name)
    found = NightlySpec.model_validate(from_yaml(path.read_text()))
    best = study.trials[1].params
    assert isinstance(found.network, MlpSpec)
    assert found.training.learning_rate == best["training.learning_rate"]
    assert found.network.hidden == best["network.hidden"]
    assert found.market == SPEC.market
    mlflow, run_id = mlflow_runs.client(bench.run.settings), bench.run.mlflow_run_id
    plots = {Path(entry.path).stem for entry in mlflow.list_artifacts(run_id, "plots")}
    assert plots == {"optimisation_history", "slices", "parameter_importances"}
    kept = Path(mlflow.download_artifacts(run_id, BEST_FILE))
    assert kept.read_text() == path.read_text()
    assert mlflow.get_run(run_id).data.metrics["best_mean_auc"] == pytest.approx(0.85)
