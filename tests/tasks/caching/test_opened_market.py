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
    assert opened(uri) is not opened(uri)
    find_days.fn(NightlySpec(market=uri))
    store = opened(uri)
    assert opened(uri) is store
    assert opened(other).uri == other
    assert opened(other) is not opened(other)
    find_days.fn(NightlySpec(market=uri))
    assert opened(uri) is not store


def test_a_shared_store_is_replaced(tmp_path: Path) -> None:
    first, second = (opened(hive(tmp_path / name, 20)) for name in "ab")
    share(first)
    share(second)
    assert opened(second.uri) is second
    assert opened(first.uri) is not first
