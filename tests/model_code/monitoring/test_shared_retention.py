"""What may be deleted in the shared store."""

import datetime as dt
import json
import os
from pathlib import Path

import pytest

from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.monitoring.retention import Item, Needed
from model_code.monitoring.shared_retention import delete, plan
from model_code.storage.objects import Objects

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
OLD = dt.datetime(2029, 1, 1, tzinfo=dt.UTC)


class Shared:
    """A shared folder whose objects can be made old."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "shared"
        self.objects = Objects(self._folder.as_uri())
        self._store = ArtifactStore(folder / "home", self.objects)

    def artefact(self, name: str) -> ArtifactRef:
        with self._store.scratch() as scratch:
            (scratch / name).mkdir()
            (scratch / name / "a").write_text(name)
            return self._store.put(scratch / name)

    def result(self, name: str, *refs: ArtifactRef) -> None:
        body = json.dumps({"result": [ref.model_dump() for ref in refs]})
        self.objects.write(f"results/{name}", body.encode())

    def age(self, when: dt.datetime = OLD) -> None:
        for path in self._folder.rglob("*"):
            os.utime(path, (when.timestamp(),) * 2)

    def look(self, needed: Needed | None = None) -> dict[str, Item]:
        items = plan(self.objects, needed or Needed(), now=NOW)
        return {item.path.as_posix(): item for item in items}


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


def key(ref: ArtifactRef) -> str:
    return f"artifacts/{ref.sha256[:2]}/{ref.sha256}"


def test_what_a_kept_result_names_is_kept_and_the_rest_is_deleted(shared: Shared) -> None:
    kept, gone = shared.artefact("kept"), shared.artefact("gone")
    shared.result("train-1", kept)
    shared.result("train-2", gone)
    shared.age()
    items = shared.look(Needed(results={"train-1": "run happy-crow"}))
    assert items[key(kept)].needed == items["results/train-1"].needed == "run happy-crow"
    assert items[key(gone)].needed is items["results/train-2"].needed is None
    assert delete(shared.objects, items.values()) > 0
    assert set(shared.look()) == {key(kept), "results/train-1"}


def test_staged_and_served_versions_keep_what_they_name(shared: Shared) -> None:
    staged, served = shared.artefact("staged"), shared.artefact("served")
    for prefix, ref in {"staging/3": staged, "serving/archive/2": served}.items():
        body = json.dumps({"engine_sha256": ref.sha256}).encode()
        shared.objects.write(f"{prefix}/manifest.json", body)
    shared.age()
    items = shared.look()
    assert items[key(staged)].needed == "shared staging"
    assert items[key(served)].needed == "shared serving"


def test_what_is_younger_than_a_day_is_kept(shared: Shared) -> None:
    ref = shared.artefact("new")
    shared.result("train-1")
    shared.objects.write("checkpoints/k/epoch-0001.pt", b"1")
    shared.age(NOW - dt.timedelta(hours=20))
    assert {item.needed for item in shared.look().values()} == {"younger than a day"}
    assert delete(shared.objects, shared.look().values()) == 0
    assert shared.objects.has(f"artifacts/{ref.uri}")


def test_checkpoints_of_a_run_that_may_be_resumed(shared: Shared) -> None:
    shared.objects.write("checkpoints/k/epoch-0001.pt", b"1")
    shared.age()
    before = OLD - dt.timedelta(hours=1)
    items = shared.look(Needed(open_since=before))
    assert items["checkpoints/k"].needed == "a run that may be resumed"
    assert shared.look()["checkpoints/k"].needed is None
