"""MLflow runs and experiments: concurrent callers, deleted experiments, foreign databases."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from model_code.errors import ConfigError
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


def test_an_experiment_deleted_in_the_page_is_restored_with_its_runs(
    tmp_path: Path, mlflow_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = with_database(tmp_path, mlflow_template)
    mlflow = mlflow_runs.client(settings)
    first = mlflow_runs.experiment_id(mlflow, settings)
    before = mlflow.create_run(first).info.run_id
    mlflow.delete_experiment(first)
    assert mlflow_runs.experiment_id(mlflow, settings) == first
    assert "was deleted in MLflow: it is restored" in capsys.readouterr().out
    mlflow.create_run(first)
    assert before in {run.info.run_id for run in mlflow.search_runs([first])}
    mlflow_runs.experiment_id(mlflow, settings)
    assert capsys.readouterr().out == ""


def with_database(home: Path, template: Path) -> Settings:
    settings = Settings(home=home).resolved()
    (home / "mlflow.db").write_bytes(template.read_bytes())
    return settings


@pytest.mark.parametrize(
    ("revision", "what", "remedy"),
    [
        ("a8c4a736bde6", "of an earlier MLflow than", 'mlflow db upgrade "sqlite:///'),
        ("ffffffffffff", "of a later MLflow than", "the Tickline that wrote it"),
    ],
)
def test_a_database_of_another_mlflow_names_the_cause_and_the_cure(
    revision: str, what: str, remedy: str, tmp_path: Path, mlflow_template: Path
) -> None:
    settings = with_database(tmp_path, mlflow_template)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("update alembic_version set version_num = ?", (revision,))
        database.commit()
    with pytest.raises(ConfigError, match=what) as caught:
        mlflow_runs.client(settings)
    assert remedy in caught.value.remedy
    assert "mlflow.db" in caught.value.where


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, surely\n" * 100)
    with pytest.raises(ConfigError, match="damaged, or is no database"):
        mlflow_runs.client(Settings(home=tmp_path).resolved())
