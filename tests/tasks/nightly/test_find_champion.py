"""The serving version and the one that served many nights ago, from the registry and the audit."""

import datetime as dt
import importlib
from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion

from model_code.artifacts import ArtifactRef
from model_code.repository import audit
from model_code.repository.audit import AuditLog
from model_code.repository.terms import Terms
from model_code.settings import MODEL_NAME, FeatureSpec, Settings, SplitSpec
from tasks.caching.stage import RunRef
from tasks.nightly.find_champion import find_champion, served_at
from tasks.nightly.records import Champion
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import TERMS_TAG, terms_of
from tests.support.serving import serves

NOW = dt.datetime.now(dt.UTC)
TERMS = Terms.of(FeatureSpec(), SplitSpec())
HISTORY = ((60, "promoted", 1), (45, "promoted", 2), (44, "started", 9), (40, "rolled back", 1),
           (10, "promoted", 3))  # fmt: skip


def written(path: Path, history: tuple[tuple[int, str, int], ...]) -> AuditLog:
    """An audit file with these events, so many days ago."""
    log = AuditLog(path)
    for number, (days, event, version) in enumerate(history):

        class Then(dt.datetime):
            at = NOW - dt.timedelta(days=days)

            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
                return cls.at.astimezone(tz)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(audit, "datetime", Then)
            log.append(event, f"{event}-{number}", {"version": version})
    return log


@pytest.mark.parametrize(
    ("days", "version"), [(61, None), (59, 1), (44.5, 2), (42, 2), (39, 1), (11, 1), (9, 3), (0, 3)]
)
def test_the_audit_file_knows_which_version_served(
    days: float, version: int | None, tmp_path: Path
) -> None:
    log = written(tmp_path / "audit.jsonl", HISTORY)
    assert served_at(log, NOW - dt.timedelta(days=days)) == version


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunRef:
    """Versions 1 to 3, the third serving, without their graphs."""
    settings = Settings(home=tmp_path).resolved()
    mlflow = mlflow_runs.client(settings)
    mlflow.create_registered_model(MODEL_NAME)
    for number in (1, 2, 3):
        tags = {TERMS_TAG: TERMS.model_dump_json()} if number > 1 else {}
        mlflow.create_model_version(MODEL_NAME, source="file:///nowhere", tags=tags)
    serves(settings, 3)

    def fetch(_: RunRef, version: ModelVersion) -> Champion:
        graph = ArtifactRef.of(name="model.onnx", sha256=str(version.version))
        return Champion(
            version=str(version.version), onnx=graph, engine=None, terms=terms_of(version.tags)
        )

    module = importlib.import_module("tasks.nightly.find_champion")
    monkeypatch.setattr(module, "_fetch", fetch)
    return RunRef(settings=settings, mlflow_run_id="m", flow_run_id="f")


def found(run: RunRef, nights: int | None) -> Champion:
    champion = find_champion.fn(run, anchor_nights=nights)
    assert champion is not None
    assert (champion.version, champion.terms) == ("3", TERMS)
    return champion


def test_the_version_of_many_nights_ago_comes_with_the_champion(run: RunRef) -> None:
    written(run.settings.audit_file, HISTORY)
    assert found(run, None).anchor is None
    older = found(run, 30)
    assert older.anchor is not None
    assert (older.anchor.version, older.anchor.terms, older.no_anchor) == ("1", None, "")
    same = found(run, 5)
    assert same.anchor is not None
    assert same.anchor.version == same.version


def test_without_one_the_reason_is_said(run: RunRef) -> None:
    assert found(run, 30).no_anchor == "the audit file names no version that served 30 nights ago"
    written(run.settings.audit_file, HISTORY)
    assert "61 nights ago" in found(run, 61).no_anchor
    mlflow_runs.client(run.settings).delete_model_version(MODEL_NAME, "1")
    gone = found(run, 30)
    assert gone.anchor is None
    assert gone.no_anchor == "version 1, which served 30 nights ago, is not in the registry"
    run.settings.audit_file.write_text("torn\n")
    assert found(run, 30).no_anchor == "the audit file is broken: line 1 is not an audit record"
