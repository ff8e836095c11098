"""Faults of the machine: full disk, no memory, damaged bytes, a clock that jumps, stale locks."""

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tasks.runs.lock import read_owner, run_lock
from tests.chaos.contents import damaged, stored
from tests.chaos.harness import Home, Row, cached_after
from tests.support.disk import small_disk


@pytest.fixture
def disk_home(tmp_path: Path, prefect_url: str, mlflow_template: Path) -> Iterator[Home]:
    """A home on a file system of its own."""
    with small_disk(tmp_path, megabytes=200) as mount:
        home = Home.make(mount, prefect_url, mlflow_template)
        try:
            yield home
        finally:
            home.kill_commands()


def test_disk_full(disk_home: Home, undisturbed: Home, table: list[Row]) -> None:
    said = disk_home.nightly("fill@export").fail()
    home = disk_home.settings.home
    (home / "ballast").unlink()
    assert "No space left on device" in said or "disk is full" in said
    named = str(home) in re.sub(r"[│\s]", "", said)  # the message may be wrapped in its frame
    assert damaged(disk_home.settings) == []
    whole = len(stored(disk_home.settings))
    why = disk_home.why()
    assert "machine" in why, why
    took = disk_home.rerun().succeed()
    disk_home.compare(undisturbed, interrupted=("export",))
    (cached,) = cached_after(("export",), disk_home, undisturbed)
    where = "naming the path" if named else "without naming the path"
    happened = f"failed, {where}; {whole} stored artefacts, none damaged; {cached}"
    table.append(Row("disk full in `export`", happened, took))


def test_out_of_memory(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    nightly = disturbed.nightly("memory@train")
    status = nightly.end()
    assert status != 0, nightly.text
    took = disturbed.rerun().succeed()
    disturbed.compare(undisturbed)
    (cached,) = cached_after(("train",), disturbed, undisturbed)
    ended = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
    table.append(Row("no memory left in `train`", f"{ended}; {cached}", took))


def test_truncated_parquet(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    disturbed.nightly("kill@publish_validation").die()
    clean = next(disturbed.settings.artifacts.rglob("*.parquet"))
    clean.write_bytes(clean.read_bytes()[: clean.stat().st_size // 2])
    said = disturbed.rerun().fail()
    assert f"artefact {clean.name} was changed after it was written" in said
    took = disturbed.rerun().succeed()
    disturbed.compare(undisturbed)
    runs = disturbed.stage_runs()
    assert {run.attempt for run in runs} == {1, 2, 3}
    # the second attempt stopped at the damaged file; the third validated that day, and no other
    assert [run.state for run in runs if run.attempt == 2][-1] == "Failed"
    again = [run for run in runs if run.attempt == 3 and run.stage == "validate"]
    symbol, date = clean.stem.split("-", 1)
    validated = [run.name for run in again if run.state == "Completed"]
    assert validated == [f"validate {symbol} {date}"]
    happened = (
        f"detected by its hash, not used; the rerun validated {len(validated)} of "
        f"{len(again)} days again"
    )
    table.append(Row("truncated Parquet in the store", happened, took))


def test_clock_goes_back(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    disturbed.nightly("clock@features").succeed()
    disturbed.compare(undisturbed)
    (run,) = disturbed.parents()
    assert run.info.end_time < run.info.start_time  # it did go back
    table.append(Row("clock goes back an hour", "completed, no rerun", None))


def test_stale_lock(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    disturbed.nightly("kill@find days").die()
    owner = read_owner(disturbed.settings)
    assert owner is not None
    assert not owner.process.lives
    assert (disturbed.settings.home / "nightly.lock").exists()
    with run_lock(disturbed.settings):  # the system freed it
        pass
    took = disturbed.nightly().succeed()  # a new nightly, not a rerun
    disturbed.compare(undisturbed)
    with disturbed.prefect() as client:
        state = client.read_flow_run(UUID(owner.flow_run_id)).state_name
    assert state == "Crashed"
    happened = f"a new nightly completed; the killed run is marked {state}"
    table.append(Row("stale lock of a killed nightly", happened, took))


def test_two_nightlies_at_once(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    first = disturbed.nightly("pause@split")
    paused = disturbed.paused(first)
    said = disturbed.nightly().fail()
    assert f"another nightly is running (pid {first.process.pid})" in said
    said = disturbed.rerun().fail()
    assert "a nightly is already running" in said
    paused.unlink()
    first.succeed()
    disturbed.compare(undisturbed)
    happened = "the second and a rerun are refused, the first completes"
    table.append(Row("two nightlies at once", happened, None))
