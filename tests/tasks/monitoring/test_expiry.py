"""What expires and what stays, with a real registry and real files."""

import datetime as dt
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Suspended

from model_code.errors import PromotionError, StorageError
from model_code.repository.audit import AuditLog
from model_code.repository.serving import ServingRepository
from model_code.repository.staging import staged_versions
from model_code.settings import MODEL_NAME, Settings
from tasks.monitoring import expiry
from tasks.monitoring.expiry import Expiry, expire, find_expiring
from tasks.promotion.open_promotion import _require_not_expired
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import EXPIRED_TAG, FREED_TAG, STAGED_BY_TAG, WEIGHTS_FOLDER
from tests.support.serving import APPROVAL, staged

KEEP = dt.timedelta(days=30)
NOW = dt.datetime.now(dt.UTC)


def night(settings: Settings, version: int) -> tuple[str, str]:
    """A night that registered and staged a version; the night's run and the registration's."""
    mlflow = mlflow_runs.client(settings)
    identity = {mlflow_runs.FLOW_RUN_TAG: f"night-{version}"}
    parent = mlflow_runs.continue_or_start(
        mlflow, settings, name=f"night-{version}", identity=identity, tags={}
    )
    for path in ("benchmark/benchmark.json", "gate/verdict.json", mlflow_runs.SPEC_FILE):
        mlflow.log_text(parent, path, path)
    training = mlflow_runs.nested(mlflow, settings, parent, "train")
    mlflow.log_text(training, "weights", "model/model.pt")
    registration = mlflow_runs.nested(mlflow, settings, parent, "registration")
    mlflow.log_text(registration, "weights", f"{WEIGHTS_FOLDER}/model.pt")
    if version == 1:
        mlflow.create_registered_model(MODEL_NAME)
    made = mlflow.create_model_version(MODEL_NAME, source="file:///nowhere", run_id=registration)
    mlflow.set_model_version_tag(MODEL_NAME, made.version, STAGED_BY_TAG, parent)
    staged(settings.staging_repository, version, mlflow_run_id=parent)
    mlflow_runs.finish(mlflow, parent, "FINISHED")
    return parent, registration


def found(settings: Settings, days: float = 20) -> dict[tuple[str, str], Expiry]:
    now = NOW + dt.timedelta(days=days)
    return {(one.kind, one.name): one for one in find_expiring(settings, keep=KEEP, now=now)}


def files(settings: Settings, run: str) -> set[str]:
    mlflow = mlflow_runs.client(settings)

    def under(path: str | None) -> set[str]:
        return {
            name
            for entry in mlflow.list_artifacts(run, path)
            for name in (under(entry.path) if entry.is_dir else {entry.path})
        }

    return under(None)


def tags(settings: Settings, version: int) -> dict[str, str]:
    return dict(
        MlflowClient(settings.tracking_uri).get_model_version(MODEL_NAME, str(version)).tags
    )


@pytest.fixture
def four(home: Settings) -> tuple[Settings, list[tuple[str, str]]]:
    """Version 1 served, 2 is nobody's, 3 is the challenger, 4 is the newest."""
    nights = [night(home, version) for version in (1, 2, 3, 4)]
    serving = ServingRepository(home.serving_repository)
    serving.publish(home.staging_repository / MODEL_NAME / "1", APPROVAL)
    AuditLog(home.audit_file).append("promoted", "a", {"version": 1})
    mlflow = mlflow_runs.client(home)
    mlflow.set_registered_model_alias(MODEL_NAME, "challenger", "3")
    return home, nights


Four = tuple[Settings, list[tuple[str, str]]]


def test_only_a_candidate_that_nothing_needs_expires(four: Four) -> None:
    home, nights = four
    before = {run: files(home, run) for pair in nights for run in pair}
    seen = found(home)
    reasons = {name: one.needed for (kind, name), one in seen.items() if kind == "model files"}
    assert reasons == {
        "version 1": "it served",
        "version 2": None,
        "version 3": "alias challenger",
        "version 4": "the newest staged version",
    }
    assert seen["staged version", "version 2"].needed is None
    assert seen["staged version", "version 2"].size > 0
    assert {files(home, run) == kept for run, kept in before.items()} == {True}, "only looked"

    freed = expire(home, seen.values(), NOW)
    assert freed == sum(one.size for one in seen.values() if one.needed is None) > 0
    assert staged_versions(home.staging_repository) == [1, 3, 4]
    assert files(home, nights[1][1]) == set()
    others = [run for number in (0, 2, 3) for run in nights[number]]
    assert {run: files(home, run) for run in others} == {run: before[run] for run in others}
    assert {EXPIRED_TAG, FREED_TAG} <= tags(home, 2).keys()
    assert not {EXPIRED_TAG, FREED_TAG} & {*tags(home, 1), *tags(home, 3), *tags(home, 4)}
    assert ("model files", "version 2") not in found(home), "done once"


def test_young_candidates_and_those_in_the_audit_file_of_late_stay(four: Four) -> None:
    home, _ = four
    assert found(home, days=13)["model files", "version 2"].needed == "younger than 14 days"
    assert found(home.resolved(staged_days=25))["model files", "version 2"].needed is not None
    late = (NOW + dt.timedelta(days=19)).isoformat(timespec="seconds")

    record = AuditLog(home.audit_file).append("approved", "b", {"version": 2})
    approved = [record.model_copy(update={"at": late})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AuditLog, "read", lambda _: approved)
        assert found(home)["model files", "version 2"].needed == "younger than 14 days"


def test_an_expired_version_cannot_be_promoted(four: Four) -> None:
    home, _ = four
    _require_not_expired(home, 2)
    expire(home, found(home).values(), NOW)
    with pytest.raises(PromotionError, match="version 2 has expired") as caught:
        _require_not_expired(home, 2)
    assert "tickline nightly" in caught.value.remedy
    _require_not_expired(home, 99)  # another check refuses it


def test_a_version_whose_promotion_is_open_stays(four: Four) -> None:
    home, _ = four
    seen = found(home)

    @flow(name="promote")
    def promote(version: int) -> None: ...

    with get_client(sync_client=True) as client:
        run: FlowRun = client.create_flow_run(promote, parameters={"version": 2}, state=Suspended())
        assert found(home)["model files", "version 2"].needed == "its promotion is open"
        expire(home, seen.values(), NOW)  # it was opened after the look
        assert EXPIRED_TAG not in tags(home, 2)
        assert 2 in staged_versions(home.staging_repository)
        client.set_flow_run_state(run.id, Completed(), force=True)


@pytest.mark.parametrize("broken", ["_remove", "_delete"])
def test_after_a_crash_the_next_cleanup_continues(
    four: Four, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, nights = four

    def fail(*_: object) -> None:
        raise StorageError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(expiry, broken, fail)
        with pytest.raises(StorageError, match="the disk is gone"):
            expire(home, found(home).values(), NOW)
    assert EXPIRED_TAG in tags(home, 2)
    assert FREED_TAG not in tags(home, 2)
    assert staged_versions(home.staging_repository) == [1, 3, 4], "never half of it"
    with pytest.raises(PromotionError, match="version 2 has expired"):
        _require_not_expired(home, 2)
    again = found(home, days=1)
    assert again["model files", "version 2"].needed is None, "it stays expired"
    expire(home, again.values(), NOW)
    assert FREED_TAG in tags(home, 2)
    assert files(home, nights[1][1]) == set()
    assert not list((home.staging_repository / MODEL_NAME).glob(".expired-*"))


def test_large_files_of_old_nights_go_reports_stay(
    four: Four, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, nights = four
    later = found(home, days=40)
    assert later["files of a night", "night-2"].needed == "one of the last 30 nights"
    monkeypatch.setattr(expiry, "KEEP_NIGHTS", 0)
    assert found(home, days=20)["files of a night", "night-2"].needed == "younger than 30 days"
    seen = found(home, days=40)
    assert seen["files of a night", "night-1"].needed == "version 1"
    assert seen["files of a night", "night-2"].needed is None
    expire(home, seen.values(), NOW)
    assert files(home, nights[1][0]) == {"gate/verdict.json", mlflow_runs.SPEC_FILE}
    assert "benchmark/benchmark.json" in files(home, nights[0][0])
    assert ("files of a night", "night-2") not in found(home, days=40)


def test_results_that_staged_an_expired_version_are_not_cached_any_more(four: Four) -> None:
    home, _ = four
    results = home.home / "results"
    results.mkdir(parents=True, exist_ok=True)
    text = '{"result": "{\\"name\\": \\"m\\", \\"version\\": \\"%d\\"}"}'
    names = [f"{stage}-{number}" for stage in ("register", "stage-candidate") for number in (2, 22)]
    for name in names:
        (results / name).write_text(text % int(name.rpartition("-")[2]))
    expire(home, found(home).values(), NOW)
    left = {path.name for path in results.iterdir() if path.name in names}
    assert left == {"register-22", "stage-candidate-22"}


def test_without_any_version_nothing_expires(home: Settings) -> None:
    assert found(home) == {}
    assert expire(home, [], NOW) == 0
    assert Path(home.home).exists()
