"""`tickline gc` in a home folder whose runs are in real stores."""

import os
import re
import time
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow, get_client, task
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer
from rich.filesize import decimal

from flows.cli import cleanup
from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.errors import TicklineError
from model_code.settings import MODEL_NAME, Settings
from tasks.runs import mlflow_runs
from tasks.runs.lock import run_lock
from tasks.runs.task_runs import settled_task_runs
from tasks.runs.version_tags import EXPIRED_TAG
from tests.support.cli import tickline
from tests.support.serving import staged

DAY_S = 86_400


def artifact(settings: Settings, text: str) -> ArtifactRef:
    store = ArtifactStore(settings.artifacts)
    with store.scratch() as scratch:
        (scratch / "text").write_text(text)
        return store.put(scratch / "text")


@task(
    persist_result=True,
    result_serializer=JSONSerializer(),  # as every stage: gc reads what a result names
    result_storage_key="used-result",
)
def make() -> ArtifactRef:
    return artifact(Settings().resolved(), "used")


@flow
def small() -> UUID:
    """A run of one stage, which leaves a result and an artefact."""
    make()
    return UUID(str(flow_run.id))


def age(path: Path, days: float) -> None:
    moment = time.time() - days * DAY_S
    for found in [*path.rglob("*"), path]:
        os.utime(found, (moment, moment))


def files(settings: Settings) -> set[Path]:
    return {path for path in settings.home.rglob("*") if path.is_file()}


def seed(settings: Settings) -> tuple[set[Path], Path]:
    """Fill the home folder; return the files that nothing needs, and a log of ten days ago."""
    run = small()
    with get_client(sync_client=True) as client:
        settled_task_runs(client, run)
    orphan = ArtifactStore(settings.artifacts).path(artifact(settings, "orphan"))
    orphan_result = settings.home / "results" / "orphan-result"
    orphan_result.write_text(f'"{orphan.parent.name}"')
    checkpoint = settings.checkpoints / "orphan" / "1.pt"
    logs = settings.home / "logs"
    old_log, log = logs / "old.log", logs / "ten-days.log"
    for path in (checkpoint, old_log, log):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    for folder in (settings.artifacts, settings.home / "results", settings.checkpoints, logs):
        age(folder, 40)
    age(log, 10)
    artifact(settings, "young")
    return {orphan, orphan_result, checkpoint, old_log}, log


def test_gc_lists_then_deletes_what_no_run_needs(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup.out, "width", 400)  # no path is folded
    doomed, log = seed(home)
    before = files(home)
    assert doomed < before

    printed = tickline("gc", "--details")
    assert files(home) == before
    listed = {Path(word) for word in printed.split() if word.startswith(str(home.home))}
    orphan, checkpoint, old_log, orphan_result = sorted(doomed)
    assert listed == {orphan.parent, checkpoint.parent, old_log, orphan_result}

    size = sum(path.stat().st_size for path in doomed)
    printed = tickline("gc", "--apply")
    assert before - files(home) == doomed
    assert decimal(size) in printed

    tickline("gc", "--apply", "--keep-days", "5")
    assert before - files(home) == doomed | {log}


def test_gc_deletes_nothing_beside_a_running_nightly(home: Settings) -> None:
    doomed, _ = seed(home)
    with run_lock(home), pytest.raises(TicklineError, match="running"):
        tickline("gc", "--apply")
    assert doomed <= files(home)


def test_gc_shows_an_expiring_version_then_deletes_it(home: Settings) -> None:
    """It was to be deleted already, when the cleanup before was killed."""
    mlflow = mlflow_runs.client(home)
    mlflow.create_registered_model(MODEL_NAME)
    folders = [staged(home.staging_repository, version) for version in (1, 2)]
    for _ in folders:
        mlflow.create_model_version(MODEL_NAME, source="file:///nowhere")
    mlflow.set_model_version_tag(MODEL_NAME, "1", EXPIRED_TAG, "2026-01-01T00:00:00+00:00")
    assert re.search(r"staged version +1 +\S+ kB +1 +\S+ kB", tickline("gc"))
    assert "version 1" in tickline("gc", "--details")
    assert [folder.exists() for folder in folders] == [True, True]
    tickline("gc", "--apply", "--staged-days", "20")
    assert [folder.exists() for folder in folders] == [False, True]
