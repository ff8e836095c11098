"""MLflow runs and experiments, with concurrent callers."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from model_code.settings import Settings
from tasks.runs import mlflow_runs


def test_two_runs_that_create_the_experiment_at_once_share_it(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, slow = mlflow_runs.client(home), mlflow_runs.client(home)
    real = slow.get_experiment_by_name
    made: list[str] = []

    def look(name: str) -> object:
        if made:
            return real(name)
        made.append(mlflow_runs.experiment_id(quick, home))  # between look-up and creation
        return None

    monkeypatch.setattr(slow, "get_experiment_by_name", look)
    assert mlflow_runs.experiment_id(slow, home) == made[0]
    assert len(MlflowClient(home.tracking_uri).search_experiments()) == 2  # and MLflow's Default


def test_an_experiment_that_cannot_be_created_is_an_error(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = mlflow_runs.client(home)

    def refuse(*_: object, **__: object) -> str:
        raise MlflowException("the store is read only")

    monkeypatch.setattr(mlflow, "create_experiment", refuse)
    with pytest.raises(MlflowException, match="read only"):
        mlflow_runs.experiment_id(mlflow, home)


def test_parameters_and_tags_are_written_without_secrets(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_AUTH_PASSWORD", "correct horse")
    mlflow = mlflow_runs.client(home)
    run_id = mlflow_runs.continue_or_start(
        mlflow,
        home,
        name="a",
        identity={mlflow_runs.FLOW_RUN_TAG: "one"},
        tags={"tickline.market": "ftp://desk:hush-hush@ticks/day"},
    )
    mlflow_runs.log_params(mlflow, run_id, {"storage": "postgresql://desk:hush-hush@db/tune"})
    mlflow_runs.set_tags(mlflow, run_id, {mlflow_runs.ERROR_TAG: "401 with correct horse"})
    data = mlflow.get_run(run_id).data
    assert data.tags["tickline.market"] == "ftp://***@ticks/day"
    assert data.params["storage"] == "postgresql://***@db/tune"
    assert data.tags[mlflow_runs.ERROR_TAG] == "401 with ***"


def test_the_commit_is_that_of_the_checkout_or_of_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(mlflow_runs.COMMIT_VARIABLE, "d" * 40)
    said = {"rev-parse": "c" * 40, "status": ""}
    monkeypatch.setattr(mlflow_runs, "git", lambda command, *_: said[command])
    assert mlflow_runs.code_commit() == "c" * 40
    said["status"] = " M flows/nightly.py"
    assert mlflow_runs.code_commit() == "c" * 40 + "-dirty"
    said["rev-parse"] = ""  # an image has no checkout
    assert mlflow_runs.code_commit() == "d" * 40
    monkeypatch.delenv(mlflow_runs.COMMIT_VARIABLE)
    assert mlflow_runs.code_commit() == "unknown"
