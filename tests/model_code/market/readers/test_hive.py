import datetime as dt
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.errors import DataError, MarketError, SchemaError
from model_code.market.level2.rows import to_table
from model_code.market.readers.hive import HiveStore
from model_code.market.schema import TICKS, InstrumentDay
from model_code.market.store import open_market
from tests.support.frames import depth_rows, write_depth
from tests.support.market import DATES, SYMBOLS, hive, quotes, ticks, write_hive

FROM_TRADES = ("last_trade", "vwap", "buy_volume", "sell_volume", "trade_count")


@pytest.fixture
def root(tmp_path):
    hive(tmp_path / "store", n=300)
    return tmp_path / "store"


def quote_path(root: Path) -> Path:
    return root / "quotes" / f"symbol={SYMBOLS[0]}" / f"date={DATES[0]}.parquet"


def first(root: Path) -> InstrumentDay:
    return open_market(str(root)).catalog()[0]


def test_catalog_is_sorted_and_opens_no_file(root):
    for path in root.rglob("*.parquet"):
        path.write_bytes(b"not Parquet")
    store = open_market(str(root))
    assert isinstance(store, HiveStore)
    assert not store.simulated
    expected = [InstrumentDay(date, symbol) for date in DATES for symbol in SYMBOLS]
    assert list(store.catalog()) == expected


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_reads_back_what_was_written(root, scheme):
    store = open_market(f"{scheme}{root}")
    out, written = store.read(first(root)), ticks(300)
    assert out.schema == TICKS
    for name in TICKS.names:
        if name in FROM_TRADES:
            # the written trades have their rows' own stamps: the next row is the first to know them
            before, found = written[name].to_numpy()[:-1], out[name]
            np.testing.assert_allclose(found.to_numpy()[1:], before, atol=1e-12, err_msg=name)
            assert found[0].as_py() in (None, 0)
        elif name == "feature_ema_1min":
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
    with pytest.raises(MarketError, match="has no trades on 2024-08-08, but on 2024-08-09"):
        open_market(str(root)).read(first(root))


def test_a_file_in_the_wrong_folder_is_refused(root):
    write_hive(root, ticks(5, symbol="OTHER"), SYMBOLS[0], DATES[0])
    with pytest.raises(DataError, match=r"contains rows of 'OTHER'.*'AAA.test'"):
        open_market(str(root)).read(first(root))


def test_unknown_day_is_refused(root):
    day = InstrumentDay(dt.date(1999, 1, 1), "AAA.test")
    with pytest.raises(MarketError, match=r"no quotes of AAA\.test on 1999-01-01"):
        open_market(str(root)).read(day)


def test_files_that_are_not_read_are_named_with_the_reason(root):
    folder = quote_path(root).parent
    quote_path(root).rename(folder / "date=2024-13-01.parquet")
    (folder / "notes.txt").write_text("")
    (folder / "old.parquet").write_text("")
    (root / "readme.md").write_text("")
    store = open_market(str(root))
    assert len(store.catalog()) == 3
    below = f"quotes/symbol={SYMBOLS[0]}"
    found = {item.path: item.reason for item in store.passed_over()}
    assert found == {
        f"{below}/date=2024-13-01.parquet": "date=2024-13-01 is not a date (YYYY-MM-DD)",
        f"{below}/notes.txt": "not a .parquet file",
        f"{below}/old.parquet": "no date=<YYYY-MM-DD> in its path",
        "readme.md": "not below quotes/, trades/ or depth/",
        f"trades/symbol={SYMBOLS[0]}/date={DATES[0]}.parquet": "trades of a day without quotes",
    }


def test_a_store_without_an_instrument_day_is_an_error(tmp_path):
    (tmp_path / "quotes").mkdir()
    (tmp_path / "quotes" / "day.parquet").write_text("")
    with pytest.raises(MarketError, match=r"no instrument-day found; 1 files: quotes/day\.parquet"):
        open_market(str(tmp_path)).catalog()


@pytest.mark.parametrize(
    "name",
    [
        "symbol=AAA.test/date=2024-08-08/part-0.parquet",
        "venue=x/symbol=AAA.test/date=2024-08-08 00%3A00%3A00/part-0.parquet",
        "symbol=AAA%2Etest/year=2024/month=8/day=08/part-0.parquet",
        "date=20240808/symbol=AAA.test/0.snappy.parquet",
    ],
)
def test_partitions_as_other_writers_name_them(tmp_path, name):
    path = tmp_path / "quotes" / name
    path.parent.mkdir(parents=True)
    pq.write_table(quotes(ticks(10)), path)
    store = open_market(str(tmp_path))
    assert store.catalog() == (InstrumentDay(DATES[0], "AAA.test"),)
    assert store.read(first(tmp_path)).num_rows == 10


def test_parts_of_a_day_are_joined_in_the_order_of_time_and_must_not_overlap(tmp_path):
    folder = tmp_path / "quotes" / "symbol=AAA.test" / "date=2024-08-08"
    folder.mkdir(parents=True)
    table = quotes(ticks(10))
    pq.write_table(table.slice(6), folder / "part-0.parquet")
    pq.write_table(table.slice(0, 6), folder / "part-1.parquet")
    store = open_market(str(tmp_path))
    assert store.read(first(tmp_path))["timestamp"].equals(table["timestamp"])
    pq.write_table(table.slice(0, 8), folder / "part-1.parquet")
    with pytest.raises(MarketError, match=r"two files cover the same time of AAA\.test 2024-08-08"):
        store.read(first(tmp_path))


def test_columns_of_other_names_are_not_used_and_named(root):
    table = quotes(ticks(10)).append_column("venue", pa.array(["x"] * 10))
    pq.write_table(table, quote_path(root))
    notes = open_market(str(root)).load(first(root)).notes
    assert "columns not used (quotes): venue" in notes.warnings


def test_one_size_without_the_other_is_a_schema_error(root):
    pq.write_table(quotes(ticks(10)).drop_columns(["ask_size"]), quote_path(root))
    with pytest.raises(SchemaError, match="'ask_size' is missing, the other size is there"):
        open_market(str(root)).read(first(root))


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
    assert sum(store.read(day).num_rows for day in days) == 335_931
    day = next(day for day in days if day.symbol == "BTCUSDT.spot")
    out = store.read(day)
    assert (out.num_rows, out["trade_count"].to_numpy().sum()) == (28_040, 9_757)
    assert out["vwap"].to_numpy(zero_copy_only=False)[-1] == pytest.approx(61_700, rel=0.01)


def test_real_fx_has_no_sizes(fx):
    store = open_market(fx)
    assert len(store.catalog()) == 22
    out = store.read(store.catalog()[0])
    assert out["bid_size"].null_count == out.num_rows == 17_428


def test_depth_rows_are_an_optional_family(root):
    store, day = open_market(str(root)), first(root)
    assert store.depth(day) is None
    assert store.supplements(day) == {}
    digest = store.digest(day)
    write_depth(root, n=300, dates=DATES[:1])
    store = open_market(str(root))
    assert store.passed_over() == ()
    assert store.digest(day) == digest  # of quotes and trades alone
    found = store.depth(day)
    assert found is not None
    assert found.notes == ()
    assert to_table(found).equals(to_table(depth_rows(ticks(300))))
    assert store.supplements(day).keys() == {"depth"}
    assert store.depth(store.catalog()[-1]) is None


def test_depth_rows_in_parts_with_other_columns_and_without_quotes(root):
    write_depth(root, n=300)
    path = root / "depth" / f"symbol={SYMBOLS[0]}" / f"date={DATES[0]}.parquet"
    whole = pq.read_table(path).append_column("venue", pa.array(["x"] * 75))
    before = open_market(str(root)).supplements(first(root))["depth"]
    path.unlink()
    (path.with_suffix("")).mkdir()
    for number, part in enumerate((whole.slice(40), whole.slice(0, 40))):
        pq.write_table(part, path.with_suffix("") / f"part-{number}.parquet")
    stray = root / "depth" / "symbol=CCC.test" / f"date={DATES[0]}.parquet"
    stray.parent.mkdir()
    pq.write_table(whole, stray)
    store = open_market(str(root))
    found = store.depth(first(root))
    assert found is not None
    assert found.notes == ("columns not used (depth): venue",)
    np.testing.assert_array_equal(found.timestamp_N, depth_rows(ticks(300)).timestamp_N)
    assert store.supplements(first(root))["depth"] != before
    assert [(item.path, item.reason) for item in store.passed_over()] == [
        (f"depth/symbol=CCC.test/date={DATES[0]}.parquet", "depth of a day without quotes")
    ]
    (path.with_suffix("") / "part-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(MarketError, match="not readable as Parquet"):
        open_market(str(root)).depth(first(root))
