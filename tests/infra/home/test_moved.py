"""A home folder that was copied or renamed: its records of processes, MLflow's locations."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient, get_tracking_uri, set_tracking_uri

from infra.home import moved
from infra.home.moved import LOCATIONS, identity, is_own, relocate
from infra.process import ProcessId
from infra.servers import record_server, running_server
from infra.services import Plan
from infra.stack_state import StackState, read, state_path
from infra.triton import daemon
from infra.triton.server import Ports
from model_code.errors import StorageError
from model_code.settings import Settings
from tasks.runs import mlflow_runs

ODD = "desk 1 #2 100%41 é"  # a folder whose name is another one in a URI


@pytest.fixture
def first(tmp_path: Path, mlflow_template: Path) -> Iterator[Settings]:
    """A home with an MLflow run, a logged model and a version of it."""
    settings = Settings(home=tmp_path / "first").resolved()
    settings.home.mkdir()
    shutil.copyfile(mlflow_template, settings.home / "mlflow.db")
    # MLflow looks up a logged model there, whatever its client names
    before = get_tracking_uri()
    set_tracking_uri(settings.tracking_uri)
    mlflow = mlflow_runs.client(settings)
    experiment = mlflow_runs.experiment_id(mlflow, settings)
    run = mlflow.create_run(experiment).info.run_id
    mlflow.log_text(run, "first", "note.txt")
    model = mlflow.create_logged_model(experiment, name="m", source_run_id=run)
    mlflow.create_registered_model("m")
    mlflow.create_model_version("m", source=f"models:/{model.model_id}", run_id=run)
    yield settings
    set_tracking_uri(before)


def copied(settings: Settings, to: Path) -> Settings:
    shutil.copytree(settings.home, to)
    return settings.resolved(home=to)


def locations(settings: Settings) -> list[str]:
    with closing(sqlite3.connect(settings.home / "mlflow.db")) as database:
        return [
            str(value)
            for table, column in LOCATIONS
            for (value,) in database.execute(f"SELECT {column} FROM {table}")  # noqa: S608
        ]


def log_another(settings: Settings) -> str:
    mlflow = mlflow_runs.client(settings)
    run = mlflow.create_run(mlflow_runs.experiment_id(mlflow, settings)).info.run_id
    mlflow.log_text(run, "second", "note.txt")
    return str(run)


def files(settings: Settings) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in settings.home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["second", ODD])
def test_a_copied_home_reads_and_writes_its_own_artefacts(
    first: Settings, tmp_path: Path, name: str
) -> None:
    before = files(first)
    second = copied(first, tmp_path / name)
    run = log_another(second)
    assert files(first) == before
    assert not [found for found in locations(second) if first.mlflow_artifacts.as_uri() in found]
    mlflow = MlflowClient(second.tracking_uri)
    for one in mlflow.search_runs(["1"]):
        text = Path(mlflow.download_artifacts(one.info.run_id, "note.txt")).read_text()
        assert text == ("second" if one.info.run_id == run else "first")
    assert mlflow.get_model_version_download_uri("m", "1").startswith(second.home.as_uri())


def test_a_renamed_home_and_one_that_moved_back(first: Settings, tmp_path: Path) -> None:
    before = locations(first)
    second = first.resolved(home=tmp_path / "renamed")
    first.home.rename(second.home)
    assert relocate(second)
    assert not relocate(second), "once is enough"
    assert locations(second) != before
    second.home.rename(first.home)
    assert relocate(first)
    assert locations(first) == before


def test_an_experiment_that_was_renamed_moves_and_one_elsewhere_stays(
    first: Settings, tmp_path: Path
) -> None:
    mlflow = MlflowClient(first.tracking_uri)
    elsewhere = (tmp_path / "desk" / first.mlflow_artifacts.name / "shared").as_uri()
    mlflow.create_experiment("by hand", artifact_location=elsewhere)
    mlflow.rename_experiment("1", "nights of 2026")
    second = copied(first, tmp_path / "second")
    relocate(second)
    experiments = mlflow_runs.client(second).search_experiments()
    found = {one.name: one.artifact_location for one in experiments}
    assert found["nights of 2026"] == (second.mlflow_artifacts / "nightly").as_uri()
    assert found["by hand"] == elsewhere


def test_a_database_of_ones_own_is_left_alone(first: Settings, tmp_path: Path) -> None:
    second = copied(first, tmp_path / "second")
    before = locations(second)
    named = second.model_copy(update={"mlflow_tracking_uri": "http://mlflow:5000"})
    assert not relocate(named)
    assert locations(second) == before
    assert not relocate(Settings(home=tmp_path / "empty").resolved())
    (second.home / "mlflow.db").write_text("not a database")
    assert not relocate(second)


def test_a_database_in_use_is_an_error_with_what_to_do(
    first: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = copied(first, tmp_path / "second")
    monkeypatch.setattr(moved, "BUSY_S", 0.1)
    with closing(sqlite3.connect(second.home / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="the home folder moved") as caught:
            relocate(second)
    assert "tickline down" in caught.value.remedy


def test_processes_of_the_original_are_not_the_copys(tmp_path: Path) -> None:
    first = Settings(home=tmp_path / "first").resolved()
    first.home.mkdir()
    state = StackState(
        supervisor=ProcessId.own(),
        plan=Plan(names=(), ports={}),
        services=(),
        home=identity(first),
    )
    state_path(first).write_text(state.model_dump_json())
    (first.home / "triton").mkdir()
    daemon.adopt(first, ProcessId.own().pid, Ports(http=1, grpc=2, metrics=3))
    record_server(first, "http://127.0.0.1:9/api")

    assert read(first) == state
    assert daemon.status(first) is not None
    second = copied(first, tmp_path / "second")
    assert read(second) is None
    assert daemon.status(second) is None
    assert not daemon.down(second), "it must not stop the original's server"
    assert running_server(second, wait_s=0) is None

    renamed = first.resolved(home=tmp_path / "renamed")
    first.home.rename(renamed.home)
    assert read(renamed) == state
    assert daemon.status(renamed) is not None


def test_a_record_of_an_earlier_tickline_counts(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path).resolved()
    assert is_own(settings, "")
    assert is_own(settings, identity(settings))
    assert not is_own(settings, "1:1")
