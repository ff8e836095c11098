"""A result whose files are gone is not cached; a damaged artefact is found again after a move."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.errors import IntegrityError
from model_code.settings import Settings
from tasks.caching.repair import damaged_artefact, drop_artefact
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import Record, Staged


class Made(Record):
    parts: tuple[dict[str, ArtifactRef], ...]


@stage("make")
def make(run: RunRef, text: str) -> Made:
    with run.store.scratch() as scratch:
        (scratch / "a.txt").write_text(text)
        return Made(parts=({"first": run.store.put(scratch / "a.txt")},))


@stage("put")
def put(run: RunRef, version: str) -> Staged:
    folder = run.settings.staging_repository / version
    folder.mkdir(parents=True)
    return Staged(path=run.settings.inside(folder), version=version, engine_sha256="0")


@flow
def both(run: RunRef) -> tuple[list[str], ArtifactRef]:
    states: list[Any] = [make(run, "tick", return_state=True), put(run, "1", return_state=True)]
    return [str(state.name) for state in states], states[0].result().parts[0]["first"]


@pytest.fixture
def run(home: Settings) -> RunRef:
    return RunRef(settings=home, mlflow_run_id="m", flow_run_id="f")


def test_a_result_without_its_files_is_computed_again(run: RunRef) -> None:
    assert both(run)[0] == ["Completed", "Completed"]
    names, ref = both(run)
    assert names == ["Cached", "Cached"]
    run.store.path(ref).unlink()
    assert both(run)[0] == ["Completed", "Cached"]
    assert run.store.open(ref).read_text() == "tick"
    shutil.rmtree(run.settings.staging_repository / "1")
    assert both(run)[0] == ["Cached", "Completed"]
    assert both(run)[0] == ["Cached", "Cached"]


def test_a_stored_result_names_no_folder(run: RunRef) -> None:
    both(run)
    for path in (run.settings.home / "results").iterdir():
        result = path.read_text().partition('"result":')[2]
        assert result
        assert str(run.settings.home) not in result


def test_an_artefact_damaged_before_the_home_moved_is_found(run: RunRef, tmp_path: Path) -> None:
    _, ref = both(run)
    run.store.path(ref).write_text("evil")
    with pytest.raises(IntegrityError) as caught:
        run.store.open(ref)
    moved = run.settings.resolved(home=tmp_path / "moved")
    run.settings.home.rename(moved.home)
    found = damaged_artefact(moved, str(caught.value))
    assert found is not None
    assert (found.uri, found.sha256) == (ref.uri, ref.sha256)
    assert drop_artefact(moved, found) == 1
    assert not ArtifactStore(moved.artifacts).path(ref).exists()
    assert damaged_artefact(moved, "\n  where: /nowhere/else.csv\n") is None
