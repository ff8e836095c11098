"""Profiles that nights logged, and which of them a night is compared with."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from model_code.attribution.profile import Profile
from model_code.settings import MODEL_NAME, Settings
from tasks.runs import mlflow_runs
from tasks.runs.attributions import drift_of, drift_since, profile_of
from tests.support.attribution import profile

FIRST, SECOND, NEWEST = profile(a=1, b=1), profile(a=3, b=1), profile(a=1, b=3)


@pytest.fixture
def settings(tmp_path: Path, mlflow_template: Path) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    return Settings(home=home).resolved()


def night(
    settings: Settings, name: str, found: Profile | None, market: str = "/ticks", start: int = 1
) -> str:
    mlflow = mlflow_runs.client(settings)
    experiment = mlflow_runs.experiment_id(mlflow, settings)
    run = mlflow.create_run(
        experiment, start_time=start, run_name=name, tags={"tickline.market": market}
    )
    if found is not None:
        mlflow.log_text(run.info.run_id, found.model_dump_json(), "attribution/profile.json")
        mlflow_runs.log_metrics(mlflow, run.info.run_id, found.metrics())
    mlflow.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def register(mlflow: MlflowClient, run_id: str) -> str:
    if not mlflow.search_registered_models():
        mlflow.create_registered_model(MODEL_NAME)
    return str(mlflow.create_model_version(MODEL_NAME, "file:///nowhere", run_id=run_id).version)


def test_a_profile_is_read_back_and_a_missing_or_foreign_one_is_none(settings: Settings) -> None:
    mlflow = mlflow_runs.client(settings)
    assert profile_of(mlflow, night(settings, "first", FIRST)) == FIRST
    bare = night(settings, "bare", None)
    assert profile_of(mlflow, bare) is None
    mlflow.log_text(bare, '{"shares": {}}', "attribution/profile.json")
    assert profile_of(mlflow, bare) is None
    assert profile_of(mlflow, "") is None


def test_a_night_is_compared_with_the_champion_else_with_the_night_before(
    settings: Settings,
) -> None:
    mlflow = mlflow_runs.client(settings)
    first = night(settings, "first", FIRST, start=10)
    assert drift_of(mlflow, first, FIRST, None) is None
    night(settings, "second", SECOND, start=20)
    night(settings, "elsewhere", FIRST, market="/other", start=30)
    bare = night(settings, "bare", None, start=35)
    newest = night(settings, "newest", NEWEST, start=40)
    night(settings, "later", FIRST, start=50)
    found = drift_of(mlflow, newest, NEWEST, None)
    assert found is not None
    assert found.against == "the night second"
    assert found.distance == pytest.approx(0.5)

    champion = register(mlflow, first)
    found = drift_of(mlflow, newest, NEWEST, champion)
    assert found is not None
    assert found.against == "the champion (version 1)"
    assert found.distance == pytest.approx(0.25)
    assert drift_since(mlflow, NEWEST, champion) == found
    assert drift_since(mlflow, None, champion) is None
    # a champion without a profile: the night before
    found = drift_of(mlflow, newest, NEWEST, register(mlflow, bare))
    assert found is not None
    assert found.against == "the night second"
