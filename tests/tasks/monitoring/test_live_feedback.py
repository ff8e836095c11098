"""Live decisions in MLflow: each hour once, on the run of its version."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient
from sklearn.metrics import roc_auc_score

from infra.live.feedback.log_files import table
from infra.live.feedback.spec import feedback_folder
from model_code.live.feedback.frames import Sampled
from model_code.live.feedback.labels import Labelled
from model_code.live.messages import Decision, Latency
from model_code.settings import FEATURE_COUNT, MODEL_NAME, SEQUENCE_LENGTH, FeatureSpec, Settings
from tasks.monitoring.live_feedback import HOUR_NS, log_feedback, unique
from tests.support.feedback import reference

LATENCY = Latency(decode=0, features=0, queue=0, inference=0, publish=0)
HOUR = 480_000
RNG = np.random.default_rng(3)


def row(number: int, hour: int, label: int | None = None, version: int = 1) -> Labelled:
    truth = number % 2 if label is None else label
    p = float(np.clip(0.5 + 0.2 * (number % 2) + 0.3 * np.sin(number), 0, 1))
    decision = Decision(
        symbol="A", sequence=number, session=0, exchange_ns=None,
        local_ns=hour * HOUR_NS + number * 10**8, model_version=version, probability=p,
        threshold=0.5, decision=p >= 0.5, side=None, latency=LATENCY,
    )  # fmt: skip
    window = RNG.normal(size=(SEQUENCE_LENGTH, FEATURE_COUNT)).astype(np.float32)
    return Labelled(Sampled(decision, window[-1].tobytes(), window.tobytes()), truth)


@pytest.fixture
def settings(tmp_path: Path, mlflow_template: Path) -> Settings:
    """A home with a registered, staged version 1."""
    made = Settings(home=tmp_path / "home").resolved()
    made.home.mkdir()
    (made.home / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    mlflow = MlflowClient(made.tracking_uri)
    experiment = mlflow.create_experiment("nightly", artifact_location=(tmp_path / "a").as_uri())
    mlflow.create_registered_model(MODEL_NAME)
    run_id = mlflow.create_run(experiment).info.run_id
    mlflow.create_model_version(MODEL_NAME, source="file:///nowhere", run_id=run_id)
    folder = made.staging_repository / MODEL_NAME / "1"
    folder.mkdir(parents=True)
    rows_NF = RNG.normal(size=(2000, FEATURE_COUNT)).astype(np.float32)
    reference(rows_NF, np.arange(2000) * 10**9, FeatureSpec(feature_set="solo")).save(folder)
    return made


def write(settings: Settings, name: str, rows: list[Labelled]) -> None:
    folder = feedback_folder(settings.home, "desk") / "log"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(rows, 1.0), folder / f"{name}.parquet")


def test_each_hour_is_logged_once_when_it_is_over(settings: Settings) -> None:
    first = [row(number, HOUR) for number in range(300)]
    write(settings, "1", first)
    now_ns = (HOUR + 1) * HOUR_NS
    assert log_feedback(settings, now_ns) == ([], [])  # rows of the hour may still come
    now_ns += HOUR_NS // 2
    ((logged,), notes) = log_feedback(settings, now_ns)
    assert notes == []
    assert (logged.group, logged.hour, logged.figures.decisions) == ("desk", HOUR, 300)
    assert log_feedback(settings, now_ns) == ([], [])
    write(settings, "2", [row(number, HOUR + 1) for number in range(300, 600)])
    ((second,), _) = log_feedback(settings, now_ns + HOUR_NS)
    assert second.hour == HOUR + 1
    mlflow = MlflowClient(settings.tracking_uri)
    version = mlflow.get_model_version(MODEL_NAME, "1")
    assert version.run_id is not None
    steps = mlflow.get_metric_history(version.run_id, "live/auc")
    assert [one.step for one in steps] == [HOUR, HOUR + 1]
    p = [one.sampled.decision.probability for one in first]
    assert steps[0].value == pytest.approx(roc_auc_score([one.label for one in first], p))
    assert float(version.tags["live_auc"]) == pytest.approx(steps[1].value, abs=1e-4)
    assert mlflow.get_run(version.run_id).data.metrics["live/base_rate"] == 0.5
    assert f"{next(iter(logged.figures.psi))}" in {
        name.removeprefix("live/psi_") for name in mlflow.get_run(version.run_id).data.metrics
    }


def test_a_version_that_is_not_known_is_noted_and_the_others_are_logged(
    settings: Settings,
) -> None:
    both = [row(number, HOUR, version=1 + number % 2 * 4) for number in range(300)]
    write(settings, "1", both)
    logged, (note,) = log_feedback(settings, (HOUR + 3) * HOUR_NS)
    assert [one.figures.version for one in logged] == [1]
    assert note.startswith("version 5 of desk is not judged")


def test_a_decision_made_again_counts_once_with_its_label() -> None:
    unlabelled, labelled, other = row(1, HOUR, -1), row(1, HOUR, 1), row(2, HOUR, 0)
    for order in ([unlabelled, labelled, other], [labelled, unlabelled, other]):
        assert [one.label for one in unique(order)] == [1, 0]
