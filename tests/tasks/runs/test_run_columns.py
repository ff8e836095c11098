"""The run list's columns, in the tag that MLflow's page reads."""

import json

from infra.ui import VIEW_TAG
from model_code.settings import Settings
from tasks.runs import mlflow_runs
from tasks.runs.run_columns import view_state


def test_a_new_experiment_and_one_of_an_earlier_version_have_the_columns(home: Settings) -> None:
    mlflow = mlflow_runs.client(home)
    made = mlflow_runs.experiment_id(mlflow, home)
    assert mlflow.get_experiment(made).tags[VIEW_TAG] == view_state()

    old = home.model_copy(update={"mlflow_experiment": "old"})
    earlier = mlflow.create_experiment("old", tags={VIEW_TAG: "{}", "desk": "rates"})
    assert mlflow_runs.experiment_id(mlflow, old) == earlier
    tags = mlflow.get_experiment(earlier).tags
    assert tags[VIEW_TAG] == view_state()
    assert tags["desk"] == "rates"


def test_the_columns_are_what_a_night_writes() -> None:
    columns = json.loads(view_state())["selectedColumns"]
    assert columns == [
        "params.`test_date`",
        "tags.`tickline.verdict`",
        "tags.`tickline.engine`",
        "metrics.`quality/auc`",
        "metrics.`baseline/auc`",
        "metrics.`latency/p50_ms`",
        "metrics.`latency/p99_ms`",
        "attributes.`Models`",
    ]
    assert len(view_state()) < 5000  # as far as MLflow keeps a tag
