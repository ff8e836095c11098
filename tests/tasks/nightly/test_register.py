from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient

from model_code.settings import MODEL_NAME, Settings
from tasks.caching.stage import RunRef
from tasks.nightly.find_champion import find_champion
from tasks.runs import mlflow_runs


def test_a_failing_registry_does_not_mean_no_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path).resolved()
    run = RunRef(settings=settings, mlflow_run_id="m", flow_run_id="f")
    assert find_champion.fn(run) is None, "no model is registered"
    mlflow_runs.client(settings).create_registered_model(MODEL_NAME)
    assert find_champion.fn(run) is None, "none is named champion"

    def gone(*_: object) -> None:
        raise MlflowException("gone", error_code=TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr(MlflowClient, "get_registered_model", gone)
    with pytest.raises(MlflowException, match="gone"):
        find_champion.fn(run)
