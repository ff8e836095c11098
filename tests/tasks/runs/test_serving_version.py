"""Which version serves, whatever the alias in MLflow's page says."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from model_code.repository.audit import AuditLog
from model_code.repository.route import Route, Target
from model_code.repository.serving import Journal, ServingRepository
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion.records import AUDIT_TAG
from tasks.runs import mlflow_runs
from tasks.runs.serving_version import last_recorded, level_alias, serving_version
from tests.support.serving import serves


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Settings:
    """A home whose registry has three versions and no alias."""
    settings = Settings(home=tmp_path / "home").resolved()
    settings.home.mkdir()
    (settings.home / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    registry(settings).create_registered_model(MODEL_NAME)
    for _ in range(3):
        registry(settings).create_model_version(MODEL_NAME, source="file:///nowhere")
    return settings


def registry(settings: Settings) -> MlflowClient:
    return mlflow_runs.client(settings)


def by_hand(settings: Settings, version: int) -> None:
    registry(settings).set_registered_model_alias(MODEL_NAME, "champion", str(version))


def test_before_the_first_promotion_nothing_serves(home: Settings) -> None:
    found = serving_version(home)
    assert (found.version, found.alias, found.warning) == (None, None, "")
    assert level_alias(home) == ""


def test_an_alias_set_by_hand_serves_nothing_and_is_named(home: Settings) -> None:
    by_hand(home, 2)
    found = serving_version(home)
    assert found.version is None
    assert found.warning == (
        "no version serves, but the alias champion in MLflow names version 2. "
        "To set the alias back: tickline reconcile"
    )
    assert level_alias(home) == "alias champion in MLflow: 2 -> none"
    assert serving_version(home).alias is None


def test_the_route_is_believed_and_the_alias_set_back(home: Settings) -> None:
    serves(home, 1)
    by_hand(home, 3)
    found = serving_version(home)
    assert (found.version, found.alias) == (1, 3)
    assert "version 1 serves, but the alias champion in MLflow names version 3" in found.warning
    assert level_alias(home) == "alias champion in MLflow: 3 -> 1"
    assert serving_version(home).warning == level_alias(home) == ""


def test_a_deleted_alias_is_a_contradiction_too(home: Settings) -> None:
    serves(home, 1)
    assert "names no version" in serving_version(home).problem
    assert level_alias(home) == "alias champion in MLflow: none -> 1"


def test_during_a_change_the_alias_may_lag_behind(home: Settings) -> None:
    serves(home, 2)
    by_hand(home, 1)
    journal = Journal(
        kind="promote",
        version=2,
        route=Route(champion=Target(model=MODEL_NAME, version=1)),
        versions=(1,),
        champion=1,
        previous=None,
        flow_run_id="f",
    )
    ServingRepository(home.serving_repository).open_journal(journal)
    assert (serving_version(home).version, serving_version(home).warning) == (2, "")
    assert level_alias(home) == ""


def test_where_nothing_is_served_a_promoted_alias_is_believed(home: Settings) -> None:
    """A machine that trains alone, with the registry of the desk."""
    by_hand(home, 2)
    assert serving_version(home).version is None
    registry(home).set_model_version_tag(MODEL_NAME, "2", AUDIT_TAG, "abc")
    found = serving_version(home)
    assert (found.version, found.warning) == (2, "")


def test_the_audit_file_says_what_was_put_into_service_last(home: Settings) -> None:
    assert last_recorded(home) is None
    log = AuditLog(home.audit_file)
    for event, version in (("promoted", 1), ("promoted", 2), ("rolled back", 1), ("started", 3)):
        log.append(event, f"{event}-{version}", {"version": version})
    assert last_recorded(home) == 1
