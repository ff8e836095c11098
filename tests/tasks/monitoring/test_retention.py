"""What is kept and why, with real runs in Prefect and MLflow and real files."""

import datetime as dt
import os
from pathlib import Path
from uuid import UUID

import pytest
from mlflow.tracking import MlflowClient
from prefect import flow, get_client, task
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer
from prefect.states import Completed, Running, Suspended

from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.settings import MODEL_NAME, Settings
from model_code.storage.objects import Objects
from model_code.storage.shared import artifact_store
from tasks.caching.shared_results import share_result
from tasks.monitoring.retention import delete, find
from tasks.runs import mlflow_runs
from tasks.runs.task_runs import settled_task_runs

LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
KEEP = dt.timedelta(days=30)


@task(
    persist_result=True,
    result_serializer=JSONSerializer(),
    cache_key_fn=lambda _, inputs: f"make-{inputs['name']}",
    on_completion=[share_result],
)
def make(name: str) -> ArtifactRef:
    store = artifact_store(Settings().resolved())
    with store.scratch() as scratch:
        (scratch / name).write_text(name)
        return store.put(scratch / name)


@flow
def night(name: str) -> tuple[ArtifactRef, str]:
    return make(name), str(flow_run.id)


def settle(run: str) -> None:
    """Return once the server knows of the run's stage."""
    with get_client(sync_client=True) as client:
        assert settled_task_runs(client, UUID(run))


def set_state(run: str, state: State[object]) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run), state, force=True)


def in_a_year() -> dt.datetime:
    """A time at which everything made now is neither young nor recent."""
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=365)


def test_needed_items_are_kept_and_the_rest_is_deleted(home: Settings) -> None:
    refs = {}
    for name in ("done", "running", "suspended", "champion", "tracked", "staged"):
        refs[name] = night(name)
    settle(refs["staged"][1])
    set_state(refs["running"][1], Running())
    set_state(refs["suspended"][1], Suspended())
    mlflow = MlflowClient(home.tracking_uri)
    mlflow.create_registered_model(MODEL_NAME)
    mlflow.create_model_version(MODEL_NAME, str(home.home / "model"))
    tag = mlflow_runs.FLOW_RUN_TAG
    mlflow.set_model_version_tag(MODEL_NAME, "1", tag, refs["champion"][1])
    mlflow.set_registered_model_alias(MODEL_NAME, "champion", "1")
    mlflow_runs.continue_or_start(
        mlflow, home, name="tracked", identity={tag: refs["tracked"][1]}, tags={}
    )
    version = home.staging_repository / MODEL_NAME / "1"
    version.mkdir(parents=True)
    fields = ("data_sha256", "code_commit", "onnx_sha256", "engine_sha256", "config_sha256")
    manifest = dict.fromkeys(fields, "0") | {"mlflow_run_id": "m"}
    text = ", ".join(f'"{name}": "{value}"' for name, value in manifest.items())
    (version / "manifest.json").write_text(
        f'{{{text}, "version": 1, "verdict": "pass", "promotable": true, "simulated": false, '
        f'"flow_run_id": "{refs["staged"][1]}"}}'
    )

    items = {item.path.name: item for item in find(home, keep=KEEP, now=in_a_year())}
    who = {name: items[ref.sha256].needed for name, (ref, _) in refs.items()}
    assert who["done"] is None
    assert "(Running)" in str(who["running"])
    assert "(Suspended)" in str(who["suspended"])
    assert who["champion"] == "champion (version 1)"
    assert "(RUNNING)" in str(who["tracked"])
    assert who["staged"] == "staging version 1"
    assert items["make-done"].needed is None
    assert items["make-champion"].needed == "champion (version 1)"

    delete(home, list(items.values()))
    store = ArtifactStore(home.artifacts)
    assert not store.path(refs["done"][0]).exists()
    for name in set(refs) - {"done"}:
        assert store.open(refs[name][0])
    set_state(refs["running"][1], Completed())
    set_state(refs["suspended"][1], Completed())
    # a stage whose result was deleted is computed again, to the same bytes
    assert night("done")[0] == refs["done"][0]
    assert store.open(refs["done"][0])


def test_results_of_recent_runs_are_kept_cached_ones_included(home: Settings) -> None:
    first, _ = night("shared")
    for path in [*home.artifacts.rglob("*"), *(home.home / "results").rglob("*")]:
        os.utime(path, (LONG_AGO.timestamp(),) * 2)
    again, run = night("shared")  # Cached: the file is as old as before
    assert again == first
    settle(run)
    now = dt.datetime.now(dt.UTC) + dt.timedelta(days=20)
    items = {item.path.name: item for item in find(home, keep=KEEP, now=now)}
    assert str(items[first.sha256].needed).startswith("run ")
    assert str(items["make-shared"].needed).startswith("run ")


def test_an_unreachable_registry_is_an_error(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Exception, match=r"refused|Max retries"):
        find(
            home.resolved(mlflow_tracking_uri="http://127.0.0.1:9"),
            keep=KEEP,
            now=in_a_year(),
        )


def test_the_shared_store_keeps_what_the_runs_of_all_hosts_need(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKLINE_STORE", str(tmp_path / "shared"))
    done, running = night("done"), night("running")
    settle(running[1])
    set_state(running[1], Running())
    elsewhere = Settings().resolved(
        home=tmp_path / "elsewhere", mlflow_tracking_uri=home.tracking_uri
    )
    items = find(elsewhere, keep=KEEP, now=in_a_year())  # a home that has none of the files
    needed = {item.path.name: item.needed for item in items if item.kind.startswith("shared ")}
    assert needed["make-done"] is needed[done[0].sha256] is None
    assert "(Running)" in str(needed["make-running"])
    assert "(Running)" in str(needed[running[0].sha256])
    assert delete(elsewhere, items) > 0
    shared = Objects((tmp_path / "shared").as_uri())
    assert [key.rpartition("/")[2] for key in shared.keys("artifacts")] == ["running"]
    set_state(running[1], Completed())
