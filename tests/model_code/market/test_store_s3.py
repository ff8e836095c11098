"""A market store in a bucket reads as the same files in a folder."""

from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url

from model_code.errors import MarketChoiceError, MarketError
from model_code.market.store import open_market
from tests.support.market import hive
from tests.support.s3 import s3_bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("ticks") as uri:
        yield uri


def test_a_market_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    hive(tmp_path)
    for path in tmp_path.rglob("*.parquet"):
        obstore.put(from_url(bucket), f"desk/{path.relative_to(tmp_path).as_posix()}", path)
    here, there = open_market(str(tmp_path)), open_market(f"{bucket}/desk")
    assert there.catalog() == here.catalog()
    assert here.catalog()
    for day in here.catalog():
        assert there.read(day).equals(here.read(day))
        assert there.digest(day) == here.digest(day)


def test_nothing_is_there(bucket: str) -> None:
    with pytest.raises(MarketChoiceError, match="no such file or folder"):
        open_market(f"{bucket}/none")


def test_there_is_no_such_bucket(bucket: str) -> None:
    with pytest.raises(MarketError, match="404 Not Found") as found:
        open_market("s3://absent/none")
    assert "\n" not in found.value.what
    assert "credentials" in found.value.remedy
