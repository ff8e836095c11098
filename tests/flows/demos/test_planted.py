import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from flows.demos.planted import TIMES, planted
from model_code.errors import DataError
from model_code.market.store import open_market
from tests.support.market import DATES, hive


def test_the_day_comes_again_a_day_later_with_larger_bids(tmp_path: Path) -> None:
    source, target = hive(tmp_path / "source"), tmp_path / "planted"
    date = DATES[-1]
    later = planted(Path(source), date, target)
    assert later == date + dt.timedelta(days=1)
    catalog = open_market(str(target)).catalog()
    assert {day.date for day in catalog} == {later}
    for day in catalog:
        name = f"quotes/symbol={day.symbol}"
        before = pl.read_parquet(Path(source) / name / f"date={date}.parquet")
        after = pl.read_parquet(target / name / f"date={later}.parquet")
        assert after["bid_size"].to_list() == (before["bid_size"] * TIMES).to_list()
        assert after["ask_size"].to_list() == before["ask_size"].to_list()
        assert after["bid_price"].to_list() == before["bid_price"].to_list()
        assert (after["timestamp"] - before["timestamp"]).unique().to_list() == [
            dt.timedelta(days=1)
        ]


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no quotes"):
        planted(tmp_path, DATES[-1], tmp_path / "planted")
