"""Stored runs by name and id, and their specifications."""

import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from model_code.errors import ConfigError
from model_code.settings import NightlySpec, Settings, TrainingSpec
from model_code.settings.changes import to_yaml
from tasks.runs import mlflow_runs
from tasks.runs.stored import model_of, specification, stored_run
from tasks.runs.tick_source import TickSource

SPEC = NightlySpec(market="simulated:", training=TrainingSpec(epochs=9))


@pytest.fixture
def settings(tmp_path, mlflow_template) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    return Settings(home=home).resolved()


def run_of(settings: Settings, name: str, text: str | None, dates: tuple[str, ...] = ()) -> str:
    mlflow = mlflow_runs.client(settings)
    identity = {mlflow_runs.FLOW_RUN_TAG: f"flow-{name}"}
    run_id = mlflow_runs.continue_or_start(mlflow, settings, name=name, identity=identity, tags={})
    if text is not None:
        mlflow.log_text(run_id, text, mlflow_runs.SPEC_FILE)
    fed = [(date, "test") for date in dates] + [("2000-01-03", "training")]
    source = TickSource("simulated:", ())
    given = [
        mlflow_runs.DatasetEntry(f"A/B/{date}", date * 7, source, context, {"rows": 1})
        for date, context in fed
    ]
    mlflow_runs.log_datasets(mlflow, run_id, given)
    return run_id


def test_a_run_is_found_by_its_name_its_id_and_its_flow_runs_id(settings: Settings) -> None:
    run_id = run_of(settings, "amber-falcon", to_yaml(SPEC))
    bench = settings.model_copy(update={"mlflow_experiment": "bench"})
    other = run_of(bench, "grey-heron", to_yaml(SPEC))
    mlflow = mlflow_runs.client(settings)
    for name in ("amber-falcon", run_id, "flow-amber-falcon"):
        assert stored_run(mlflow, name).info.run_id == run_id
    assert stored_run(mlflow, "grey-heron").info.run_id == other
    with pytest.raises(MlflowException):
        stored_run(mlflow, "no'body")


def test_a_run_is_found_by_the_first_digits_of_its_flow_runs_id(settings: Settings) -> None:
    mlflow, own = mlflow_runs.client(settings), "b7235c12-2e7d-40fb-8255-e179830bb6da"
    identity = {mlflow_runs.FLOW_RUN_TAG: own}
    run_id = mlflow_runs.continue_or_start(mlflow, settings, name="n", identity=identity, tags={})
    for name in (own, own[:8], own[:13]):
        assert stored_run(mlflow, name).info.run_id == run_id
    with pytest.raises(MlflowException):
        stored_run(mlflow, own[:7])


@pytest.mark.parametrize(
    ("dates", "expected"),
    [(("2000-01-04", "2000-01-04"), "2000-01-04"), ((), None)],
)
def test_a_specification_carries_the_date_that_was_judged_on(
    settings: Settings, dates: tuple[str, ...], expected: str | None
) -> None:
    run_of(settings, "amber-falcon", to_yaml(SPEC), dates)
    found = specification(settings, "amber-falcon")
    assert found == SPEC.model_copy(update={"test_date": expected})


def test_a_date_of_the_specification_stays(settings: Settings) -> None:
    spec = SPEC.model_copy(update={"test_date": "2000-01-05"})
    run_of(settings, "amber-falcon", to_yaml(spec), ("2000-01-04",))
    assert specification(settings, "amber-falcon") == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "the run has no specification"),
        ("training: {epoch: 3}", "not one of this version"),
        ("{", "not one of this version"),
    ],
)
def test_a_run_without_a_usable_specification_is_refused(
    settings: Settings, text: str | None, message: str
) -> None:
    run_of(settings, "amber-falcon", text)
    with pytest.raises(ConfigError, match=message):
        specification(settings, "amber-falcon")


def test_an_unknown_run_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="no run is named 'nobody'"):
        specification(settings, "nobody")


@pytest.mark.parametrize(
    ("source", "model"), [("models:/m-1", "m-1"), ("models:/other/1", None), ("file:///a", None)]
)
def test_the_logged_model_of_a_version_is_named_by_its_source(
    source: str, model: str | None
) -> None:
    assert model_of(ModelVersion("stored", "1", 0, source=source)) == model
