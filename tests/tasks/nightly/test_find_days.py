from pathlib import Path

import fsspec
import pytest

from model_code.market.readers.files import hash_file
from model_code.settings import NightlySpec
from tasks.caching import file_digests
from tasks.caching.refresh import refreshing
from tasks.nightly.find_days import find_days
from tests.support.frames import write_series
from tests.support.market import DATES, epoch_ns, hive

FILES = 8  # quotes and trades of two instruments on two dates


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(file_digests, "RACY_NS", 0)
    return hive(tmp_path / "store", 50)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that are hashed, in order."""
    found: list[str] = []

    def noted(fs: fsspec.AbstractFileSystem, path: str) -> str:
        found.append(path)
        return hash_file(fs, path)

    monkeypatch.setattr(file_digests, "hash_file", noted)
    return found


def test_only_new_and_changed_files_are_hashed(
    store: str, tmp_path: Path, hashed: list[str]
) -> None:
    spec, home = NightlySpec(market=store), tmp_path / "home"
    plan = find_days.fn(spec, home)
    assert len(hashed) == FILES
    assert plan == find_days.fn(spec)  # which hashes every file
    hashed.clear()
    assert find_days.fn(spec, home) == plan
    assert hashed == []
    hive(tmp_path / "store", 60, dates=DATES[1:])
    changed = find_days.fn(spec, home)
    assert len(hashed) == FILES // 2
    assert changed == find_days.fn(spec)
    assert [day.digest == old.digest for day, old in zip(changed.days, plan.days, strict=True)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_supplements_and_the_statement_are_remembered_too(
    store: str, tmp_path: Path, hashed: list[str]
) -> None:
    (tmp_path / "store" / "tickline.yaml").write_text("profile: crypto\n")
    write_series(store, "macro", [epoch_ns(DATES[0])], vix=[1.0])
    spec, home = NightlySpec(market=store), tmp_path / "home"
    plan = find_days.fn(spec, home)
    assert plan.supplements.keys() == {"exogenous/macro"}
    hashed.clear()
    assert find_days.fn(spec, home) == plan
    assert hashed == []


def test_refresh_hashes_every_file_again(store: str, tmp_path: Path, hashed: list[str]) -> None:
    spec, home = NightlySpec(market=store), tmp_path / "home"
    plan = find_days.fn(spec, home)
    hashed.clear()
    with refreshing(True):
        assert find_days.fn(spec, home) == plan
    assert len(hashed) == FILES


def test_no_file_of_a_day_that_is_not_chosen_is_opened(store: str, tmp_path: Path) -> None:
    left_out = tmp_path / "store" / "quotes" / "symbol=AAA.test" / "date=2024-08-05.parquet"
    left_out.write_bytes(b"not Parquet")
    plan = find_days.fn(NightlySpec(market=store, train_days=1), tmp_path / "home")
    assert {day.date for day in plan.days} == set(DATES)
