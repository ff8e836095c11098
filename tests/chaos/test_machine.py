"""Faults of the machine: full disk, no memory, broken bytes, a clock that jumps, stale locks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.runs.lock import read_owner, run_lock
from tests.chaos.harness import Home, Row
from tests.support.disk import small_disk


@pytest.fixture
def disk_home(tmp_path: Path, prefect_url: str) -> Iterator[Home]:
    """A home on a file system of its own."""
    with small_disk(tmp_path, megabytes=200) as mount:
        home = Home.make(mount, prefect_url)
        try:
            yield home
        finally:
            home.kill_leftovers()


def test_disk_full(disk_home: Home, undisturbed: Home, table: list[Row]) -> None:
    said = disk_home.nightly(("fill", "export")).fail()
    assert "No space left on device" in said or "disk is full" in said
    (disk_home.settings.home / "ballast").unlink()
    why = disk_home.why()
    assert "machine" in why, why
    took = disk_home.rerun().succeed()
    disk_home.compare(undisturbed)
    table.append(Row("disk full in `export`", "failed with the path; no half-written file", took))


def test_out_of_memory(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    night = disturbed.nightly(("memory", "train"))
    assert night.end() != 0, night.text
    took = disturbed.rerun().succeed()
    disturbed.compare(undisturbed)
    table.append(Row("no memory left in `train`", "the process ended; nothing was lost", took))


def test_truncated_parquet(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    disturbed.nightly(("kill", "validate")).die()
    disturbed.rerun(("kill", "publish_validation")).die()
    clean = next(disturbed.settings.artifacts.rglob("*.parquet"))
    clean.write_bytes(clean.read_bytes()[: clean.stat().st_size // 2])
    said = disturbed.rerun().fail()
    assert "was changed after it was written" in said
    again = disturbed.rerun()
    took = again.succeed()
    assert "is computed again" in again.text
    disturbed.compare(undisturbed)
    happened = "noticed by its hash, not used; the rerun validated that day again"
    table.append(Row("truncated Parquet in the store", happened, took))


def test_clock_goes_back(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    disturbed.nightly(("clock", "features")).succeed()
    disturbed.compare(undisturbed)
    table.append(Row("clock goes back an hour", "the night went through", 0.0))


def test_stale_lock(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    disturbed.nightly(("kill", "find days")).die()
    holder = read_owner(disturbed.settings)
    assert holder is not None
    assert not holder.process.lives
    assert (disturbed.settings.home / "nightly.lock").exists()
    with run_lock(disturbed.settings):  # the system freed it
        pass
    took = disturbed.nightly().succeed()  # a new night, not the rerun
    disturbed.compare(undisturbed)
    assert "Crashed" in disturbed.why()
    table.append(Row("stale lock of a killed night", "not in the way; that run is Crashed", took))


def test_two_nightlies_at_once(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    first = disturbed.nightly(("signal", "split"))
    reached = disturbed.reached(first)
    said = disturbed.nightly().fail()
    assert "another nightly is running" in said
    said = disturbed.rerun().fail()
    assert "a nightly is already running" in said
    reached.unlink()
    first.succeed()
    disturbed.compare(undisturbed)
    table.append(Row("two nightlies at once", "the second is refused, the first goes on", 0.0))
