import json

import numpy as np
import pytest

from infra.ui import VIEW_TAG
from model_code.settings import Settings
from model_code.training.run import EpochMetrics
from tasks.runs import mlflow_runs
from tasks.runs.metric_names import GROUPS, logged_as, plain, view_state
from tests.support.benchmark import benchmark_run

KNOWN = [name for names in GROUPS.values() for name in names]


def test_names_have_one_group_each_and_are_read_back() -> None:
    assert len(set(KNOWN)) == len(KNOWN)
    families = ["throughput", "throughput_b64", "baseline_auc", "validation_auc", "live_psi_mid"]
    families += ["auc_interval_low", "p99_ms_c8"]
    for name in [*KNOWN, *families]:
        assert logged_as(name).count("/") == 1, name
        assert plain(logged_as(name)) == name
        assert logged_as(logged_as(name)) == logged_as(name), "logged again under the same name"
        assert plain(name) == name, "of a run of an earlier version"


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("auc", "quality/auc"),
        ("p50_ms", "latency/p50_ms"),
        ("baseline_auc", "baseline/auc"),
        ("rows", "data/rows"),
        ("throughput", "throughput/largest_batch"),
        ("throughput_b1", "throughput/b1"),
        ("mean_auc", "mean_auc"),
        ("attribution_lag/1", "attribution_lag/1"),
    ],
)
def test_examples(name: str, logged: str) -> None:
    assert logged_as(name) == logged
    assert plain(logged) == name


def test_every_metric_of_an_engine_and_of_an_epoch_has_a_group() -> None:
    measured = benchmark_run(
        np.array([0, 1]), {"torch-fp32": np.array([0.1, 0.9])}, {"torch-fp32": np.full(40, 2.0)}
    )
    engine = measured.result.rows[0].metrics()
    metrics = {*engine, *EpochMetrics.__annotations__} - {"epoch"}
    assert len(metrics) > 40
    assert {name for name in metrics if "/" not in logged_as(name)} == set()


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
        "metrics.`quality/auc`",
        "metrics.`baseline/auc`",
        "metrics.`latency/p50_ms`",
        "metrics.`latency/p99_ms`",
        "tags.`tickline.engine`",
        "attributes.`Models`",
    ]
    assert len(view_state()) < 5000  # as far as MLflow keeps a tag
