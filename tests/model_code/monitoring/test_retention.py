import datetime as dt
import json
import os
from pathlib import Path

import pytest

from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.monitoring.retention import Folders, Item, Needed, delete, plan

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
OLD = NOW - dt.timedelta(days=60)


def folders(home: Path) -> Folders:
    return Folders(
        artifacts=home / "artifacts",
        results=home / "results",
        checkpoints=home / "checkpoints",
        logs=home / "logs",
        repositories=(home / "staging",),
    )


def aged(path: Path, when: dt.datetime = OLD) -> Path:
    for found in [*path.rglob("*"), path] if path.is_dir() else [path]:
        os.utime(found, (when.timestamp(),) * 2)
    return path


def store_of(home: Path) -> ArtifactStore:
    return ArtifactStore(home / "artifacts")


def stored(home: Path, name: str, when: dt.datetime = OLD) -> ArtifactRef:
    """An artefact of the store with the given age."""
    store = store_of(home)
    with store.scratch() as scratch:
        (scratch / name).write_text(f"bytes of {name}")
        ref = store.put(scratch / name)
    aged(store.path(ref).parent, when)
    return ref


def result(home: Path, name: str, *refs: ArtifactRef, when: dt.datetime = OLD) -> Path:
    path = home / "results" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"result": [ref.model_dump() for ref in refs]}))
    return aged(path, when)


def look(home: Path, needed: Needed | None = None) -> dict[str, Item]:
    items = plan(folders(home), needed or Needed(), now=NOW, keep_logs=dt.timedelta(days=30))
    return {item.path.name: item for item in items}


def test_a_kept_result_keeps_its_artefacts_and_the_rest_is_deleted(tmp_path: Path) -> None:
    kept, shared, gone = (stored(tmp_path, name) for name in ("kept", "shared", "gone"))
    result(tmp_path, "train-1", kept, shared)
    result(tmp_path, "train-2", gone, shared)
    found = look(tmp_path, Needed(results={"train-1": "run brave-fox"}))
    assert found[kept.sha256].needed == "run brave-fox"
    assert found[shared.sha256].needed == "run brave-fox"
    assert {item.path.name for item in found.values() if not item.needed} == {
        "train-2",
        gone.sha256,
    }
    freed = delete(found.values())
    assert freed == found["train-2"].size + found[gone.sha256].size
    assert store_of(tmp_path).open(kept)
    assert not store_of(tmp_path).path(gone).exists()
    assert not (tmp_path / "results" / "train-2").exists()


def test_planning_deletes_nothing(tmp_path: Path) -> None:
    ref = stored(tmp_path, "unneeded")
    assert look(tmp_path)[ref.sha256].needed is None
    assert store_of(tmp_path).open(ref)


def test_recent_files_may_belong_to_a_running_stage(tmp_path: Path) -> None:
    fresh = NOW - dt.timedelta(hours=23)
    young = stored(tmp_path, "young", fresh)
    behind = stored(tmp_path, "behind")
    result(tmp_path, "features-1", behind, when=fresh)
    aged_scratch = tmp_path / "artifacts" / ".scratch-old"
    aged_scratch.mkdir()
    aged(aged_scratch)
    (tmp_path / "artifacts" / ".scratch-new").mkdir()
    found = look(tmp_path)
    assert found[young.sha256].needed == "younger than a day"
    assert found[behind.sha256].needed == "younger than a day"
    assert found[".scratch-old"].needed is None
    assert found[".scratch-new"].needed


def test_artefacts_named_by_repositories_and_registry_are_kept(tmp_path: Path) -> None:
    engine, graph, gone = (stored(tmp_path, name) for name in ("engine", "graph", "gone"))
    version = tmp_path / "staging" / "financial_predictor" / "4"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text(json.dumps({"engine_sha256": engine.sha256}))
    found = look(tmp_path, Needed(hashes={graph.sha256: "champion (version 4)"}))
    assert found[engine.sha256].needed == "repository staging"
    assert found[graph.sha256].needed == "champion (version 4)"
    assert found[gone.sha256].needed is None
    assert not [item for item in found.values() if item.path.is_relative_to(version)]


def test_checkpoints_of_a_resumable_run_are_kept(tmp_path: Path) -> None:
    for name, days in (("before", 12), ("since", 8)):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "epoch-0001.pt").write_bytes(b"x")
        aged(folder, NOW - dt.timedelta(days=days))
    open_run = look(tmp_path, Needed(open_since=NOW - dt.timedelta(days=10)))
    assert open_run["before"].needed is None
    assert open_run["since"].needed == "a run that may be resumed"
    assert look(tmp_path)["since"].needed is None


def test_logs_are_deleted_by_age_and_links_are_not_followed(tmp_path: Path) -> None:
    logs, outside = tmp_path / "home" / "logs", tmp_path / "outside"
    logs.mkdir(parents=True)
    outside.mkdir()
    (outside / "precious").write_text("x")
    (logs / "link").symlink_to(outside)
    os.utime(logs / "link", (OLD.timestamp(),) * 2, follow_symlinks=False)
    aged_log, recent = logs / "old.log", logs / "recent.log"
    for path in (aged_log, recent):
        path.write_text("x")
    aged(aged_log)
    aged(recent, NOW - dt.timedelta(days=5))
    found = look(tmp_path / "home")
    delete(found.values())
    assert (outside / "precious").exists()
    assert [path.name for path in logs.iterdir()] == ["recent.log"]


def test_an_empty_home_has_nothing_to_delete(tmp_path: Path) -> None:
    assert look(tmp_path / "nowhere") == {}
    assert delete([]) == 0


@pytest.mark.parametrize("text", ["", "{}", "not json", "deadbeef"])
def test_results_without_references_keep_nothing(tmp_path: Path, text: str) -> None:
    ref = stored(tmp_path, "ref")
    path = result(tmp_path, "train-1")
    path.write_text(text)
    assert look(tmp_path, Needed(results={"train-1": "run"}))[ref.sha256].needed is None
