import datetime as dt
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.errors import DataError, MarketError, SchemaError
from model_code.market.hive import HiveStore
from model_code.market.schema import TICKS, InstrumentDay
from model_code.market.store import open_market
from tests.support.market import DATES, SYMBOLS, hive, quotes, ticks, write_hive


@pytest.fixture
def root(tmp_path):
    hive(tmp_path / "store", n=300)
    return tmp_path / "store"


def quote_path(root: Path) -> Path:
    return root / "quotes" / f"symbol={SYMBOLS[0]}" / f"date={DATES[0]}.parquet"


def first(root: Path) -> InstrumentDay:
    return open_market(str(root)).catalog()[0]


def test_catalog_is_sorted_and_counts_rows(root):
    store = open_market(str(root))
    assert isinstance(store, HiveStore)
    assert not store.simulated
    expected = [InstrumentDay(date, symbol, 300) for date in DATES for symbol in SYMBOLS]
    assert list(store.catalog()) == expected


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_reads_back_what_was_written(root, scheme):
    store = open_market(f"{scheme}{root}")
    out, written = store.read(first(root)), ticks(300)
    assert out.schema == TICKS
    for name in TICKS.names:
        if name in ("buy_volume", "sell_volume", "vwap", "feature_ema_1min"):
            np.testing.assert_allclose(out[name].to_numpy(), written[name].to_numpy(), atol=1e-12)
        else:
            assert out[name].equals(written[name]), name


def test_memory_file_system(root):
    memory = fsspec.filesystem("memory")
    memory.put(str(root), "/tick-store", recursive=True)
    store = open_market("memory://tick-store")
    assert store.catalog() == open_market(str(root)).catalog()
    assert store.read(store.catalog()[0]).equals(open_market(str(root)).read(first(root)))
    assert store.digest(first(root)) == open_market(str(root)).digest(first(root))
    memory.rm("/tick-store", recursive=True)


def test_source_order_and_backward_clock_are_kept(root):
    table = quotes(ticks(300)).take(pa.array([5, 3, 4, 5]))
    pq.write_table(table, quote_path(root))
    out = open_market(str(root)).read(first(root))
    assert out["timestamp"].equals(table["timestamp"])


def test_absent_sizes_and_trades_become_nulls(tmp_path):
    path = quote_path(tmp_path)
    path.parent.mkdir(parents=True)
    pq.write_table(quotes(ticks(10)).drop_columns(["bid_size", "ask_size"]), path)
    out = open_market(str(tmp_path)).read(first(tmp_path))
    assert out["bid_size"].null_count == out["feature_ema_1min"].null_count == 10
    assert out["last_trade"].null_count == 10


def test_a_missing_column_is_a_schema_error(root):
    pq.write_table(quotes(ticks(10)).drop_columns(["ask_price"]), quote_path(root))
    with pytest.raises(SchemaError, match="column 'ask_price' is missing") as caught:
        open_market(str(root)).read(first(root))
    assert caught.value.where == str(quote_path(root))


def test_a_wrong_type_is_a_schema_error(root):
    table = quotes(ticks(3))
    table = table.set_column(2, "bid_price", pa.array(["1", "2", "3"]))
    pq.write_table(table, quote_path(root))
    with pytest.raises(SchemaError, match=r"'bid_price' .* expected double, found string"):
        open_market(str(root)).read(first(root))


def test_truncated_parquet_is_named_with_a_remedy(root):
    path = quote_path(root)
    path.write_bytes(path.read_bytes()[:-100])
    store = open_market(str(root))
    assert store.catalog()[0].rows is None
    with pytest.raises(MarketError, match="truncated or corrupt") as caught:
        store.read(store.catalog()[0])
    assert str(path) in str(caught.value)
    assert "again" in caught.value.remedy


def test_corrupt_pages_are_named(root):
    path = quote_path(root)
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(bytes(data))
    with pytest.raises(MarketError, match="truncated or corrupt"):
        open_market(str(root)).read(first(root))


def test_trades_missing_on_one_day_only_are_an_error(root):
    (root / "trades" / f"symbol={SYMBOLS[0]}" / f"date={DATES[0]}.parquet").unlink()
    with pytest.raises(MarketError, match="has trades on other days"):
        open_market(str(root)).read(first(root))


def test_a_file_in_the_wrong_folder_is_refused(root):
    write_hive(root, ticks(5, symbol="OTHER"), SYMBOLS[0], DATES[0])
    with pytest.raises(DataError, match=r"contains rows of 'OTHER'.*'AAA.test'"):
        open_market(str(root)).read(first(root))


def test_unknown_day_is_refused(root):
    day = InstrumentDay(dt.date(1999, 1, 1), "AAA.test")
    with pytest.raises(MarketError, match=r"no file for AAA\.test"):
        open_market(str(root)).read(day)


def test_a_file_name_without_a_valid_date_is_refused(root):
    quote_path(root).rename(quote_path(root).with_name("date=2024-13-01.parquet"))
    with pytest.raises(MarketError, match="2024-13-01 is not a date"):
        open_market(str(root)).catalog()


def test_digest_follows_the_bytes(root):
    store = open_market(str(root))
    days = store.catalog()
    before = [store.digest(day) for day in days]
    assert len(set(before)) == len(days)
    pq.write_table(quotes(ticks(10)), quote_path(root))
    after = [store.digest(day) for day in days]
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_empty_day_is_an_empty_table(root):
    pq.write_table(quotes(ticks(0)), quote_path(root))
    assert open_market(str(root)).read(first(root)).num_rows == 0


def test_real_binance_counts(binance):
    store = open_market(binance)
    days = store.catalog()
    assert sum(day.rows or 0 for day in days) == 335_931
    day = next(day for day in days if day.symbol == "BTCUSDT.spot")
    out = store.read(day)
    assert (out.num_rows, out["trade_count"].to_numpy().sum()) == (28_040, 9_757)
    assert out["vwap"].to_numpy(zero_copy_only=False)[-1] == pytest.approx(61_700, rel=0.01)


def test_real_fx_has_no_sizes(fx):
    store = open_market(fx)
    assert len(store.catalog()) == 22
    out = store.read(store.catalog()[0])
    assert out["bid_size"].null_count == out.num_rows == store.catalog()[0].rows
