from pathlib import Path

import pytest

from model_code.settings import NightlySpec
from tasks.caching import opened_market
from tasks.caching.opened_market import opened, share
from tasks.nightly.find_days import find_days
from tests.support.market import hive


@pytest.fixture(autouse=True)
def _none_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_market, "_newest", None)


def test_later_stages_read_the_store_that_find_days_has_listed(tmp_path: Path) -> None:
    uri, other = hive(tmp_path / "a", 20), hive(tmp_path / "b", 20)
    find_days.fn(NightlySpec(market=uri))
    store = opened(uri, "run")
    assert opened(uri, "run") is store
    assert opened(other, "run").uri == other
    find_days.fn(NightlySpec(market=uri))
    assert opened(uri, "run") is not store


def test_a_process_without_find_days_opens_the_store_once_for_each_run(tmp_path: Path) -> None:
    uri = hive(tmp_path, 20)
    store = opened(uri, "one")
    assert opened(uri, "one") is store
    later = opened(uri, "two")
    assert later is not store
    assert opened(uri, "two") is later


def test_a_shared_store_is_replaced(tmp_path: Path) -> None:
    first, second = (opened(hive(tmp_path / name, 20), "run") for name in "ab")
    share(first)
    share(second)
    assert opened(second.uri, "run") is second
    assert opened(first.uri, "run") is not first
