"""Results and the artefacts they name, on two homes that share no folder but the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from model_code.artifacts import ArtifactRef
from model_code.settings import Settings
from model_code.storage.objects import Objects
from model_code.storage.shared import artifact_store
from tasks.caching.once_per_run import once_per_run
from tasks.caching.refresh import refreshing
from tasks.caching.shared_results import RESULTS
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import Record

RUNS: list[str] = []


class Kept(Record):
    file: ArtifactRef


@stage("keep")
def keep(run: RunRef, text: str) -> Kept:
    RUNS.append(text)
    with run.store.scratch() as scratch:
        (scratch / "a.txt").write_text(text)
        return Kept(file=run.store.put(scratch / "a.txt"))


@flow
def kept(run: RunRef, text: str) -> tuple[str, Kept]:
    state: Any = keep(run, text, return_state=True)
    return str(state.name), state.result()


@contextmanager
def at(home: Path) -> Iterator[RunRef]:
    """As on a host with that home."""
    settings = Settings().resolved(home=home)
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: home / "results"}):
        yield RunRef(settings=settings, mlflow_run_id="m", flow_run_id="f")


@pytest.fixture
def objects(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Objects:
    uri = (tmp_path / "shared").as_uri()
    monkeypatch.setenv("TICKLINE_STORE", uri)
    RUNS.clear()
    return Objects(uri)


def results(objects: Objects) -> list[str]:
    return objects.keys(RESULTS)


def test_a_stage_of_another_host_is_cached_here(objects: Objects, tmp_path: Path) -> None:
    with at(tmp_path / "a") as run:
        assert kept(run, "tick")[0] == "Completed"
    with at(tmp_path / "b") as run:
        name, found = kept(run, "tick")
        assert name == "Cached"
        assert run.store.open(found.file).read_text() == "tick"
    assert RUNS == ["tick"]
    assert len(results(objects)) == 1


def test_a_result_that_was_not_copied_is_copied_later(objects: Objects, tmp_path: Path) -> None:
    with at(tmp_path / "a") as run:
        _, found = kept(run, "tick")
        for key in results(objects):
            objects.delete(key)
        objects.delete(f"artifacts/{found.file.uri}")
        assert kept(run, "tick")[0] == "Cached"
    with at(tmp_path / "b") as run:
        assert kept(run, "tick")[0] == "Cached"


def test_a_result_whose_artefact_is_nowhere_is_computed_again(
    objects: Objects, tmp_path: Path
) -> None:
    with at(tmp_path / "a") as run:
        _, found = kept(run, "tick")
        run.store.drop(found.file)
    with at(tmp_path / "b") as run:
        assert kept(run, "tick")[0] == "Completed"
    with at(tmp_path / "a") as run:
        assert kept(run, "tick")[0] == "Cached"
        assert artifact_store(run.settings).open(found.file).read_text() == "tick"
    assert RUNS == ["tick", "tick"]


def test_a_truncated_shared_result_is_replaced(objects: Objects, tmp_path: Path) -> None:
    with at(tmp_path / "a") as run:
        kept(run, "tick")
    (key,) = results(objects)
    objects.write(key, (objects.read(key) or b"")[:40])
    with at(tmp_path / "b") as run:
        assert kept(run, "tick")[0] == "Completed"
    with at(tmp_path / "c") as run:
        assert kept(run, "tick")[0] == "Cached"


def test_a_refreshing_run_uses_no_older_result_of_another_host(
    objects: Objects, tmp_path: Path
) -> None:
    with at(tmp_path / "a") as run:
        kept(run, "tick")
    with at(tmp_path / "b") as run, refreshing(wanted=True):
        assert kept(run, "tick")[0] == "Completed"
    assert RUNS == ["tick", "tick"]


@once_per_run("count")
def count() -> int:
    RUNS.append("count")
    return len(RUNS)


def test_a_step_of_a_run_is_found_by_the_host_that_resumes_it(
    objects: Objects, tmp_path: Path
) -> None:
    homes = iter([tmp_path / "a", tmp_path / "b"])

    @flow
    def resumed() -> list[int]:
        found = []
        for home in homes:
            with at(home):
                found.append(count())
        return found

    assert resumed() == [1, 1]
    assert RUNS == ["count"]
