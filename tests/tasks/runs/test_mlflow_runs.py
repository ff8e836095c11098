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
