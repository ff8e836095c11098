"""A night that stops in training in one home goes on in another; they share a store, no folder."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from flows.nightly import nightly
from flows.runs.outcome import Outcome
from flows.runs.rerun import rerun
from model_code.settings import MODEL_NAME, Settings, TrainingSpec
from model_code.storage.staged import fetch_all_staged
from model_code.training import checkpoint
from tasks.runs.metric_names import logged_as
from tests.support.flow import EASY, SIMULATED, children, parents, stage_states, tiny
from tests.support.s3 import s3_bucket


@pytest.mark.slow
def test_a_night_goes_on_in_another_home_at_the_next_epoch(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goals = tmp_path / "goals.yaml"
    goals.write_text(EASY)
    spec = tiny(
        SIMULATED,
        goals=str(goals),
        training=TrainingSpec(epochs=4, batch_size=32, learning_rate=2e-3),
    )
    write = checkpoint.write

    def write_two(folder: Path, key: str, epoch: int, payload: dict[str, object]) -> Path:
        if epoch == 3:
            raise OSError("the host lost its power")
        return write(folder, key, epoch, payload)

    with s3_bucket("tickline") as uri:
        monkeypatch.setenv("TICKLINE_STORE", uri)
        monkeypatch.setenv("TICKLINE_MLFLOW_TRACKING_URI", home.tracking_uri)
        with monkeypatch.context() as broken:
            broken.setattr(checkpoint, "write", write_two)
            with pytest.raises(OSError, match="lost its power"):
                nightly(spec)
        other = tmp_path / "other"
        monkeypatch.setenv("TICKLINE_HOME", str(other))
        with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: other / "results"}):
            outcome = rerun(Settings().resolved(), None, say=print)
        assert isinstance(outcome, Outcome)
        states = stage_states(outcome.flow_run_id)
        cached = {name for name, state in states.items() if state == "Cached"}
        assert {"feature table", "split", "baseline"} <= cached
        (parent,) = parents(home)
        training = children(home, parent.info.run_id)["training"]
        epochs = [path.name for path in (other / "checkpoints").rglob("epoch-*.pt")]
        assert sorted(epochs) == ["epoch-0003.pt", "epoch-0004.pt"]
        history = MlflowClient(home.tracking_uri).get_metric_history(
            training.info.run_id, logged_as("train_loss")
        )
        assert [point.step for point in history] == [1, 2, 3, 4]  # none was trained twice
        # MLflow's files, which no server places, are in the store
        assert training.info.artifact_uri.startswith(f"{uri}/mlflow/")
        # what the other home staged is found by the first
        monkeypatch.setenv("TICKLINE_HOME", str(home.home))
        first = Settings().resolved()
        assert fetch_all_staged(first) == [1]
        assert (first.staging_repository / MODEL_NAME / "1" / "model.onnx").exists()
