"""A desk's own Parquet through its mapping, against the source's quotes and trades."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.errors import ConfigError, DataError, MarketError, SchemaError
from model_code.market.readers import mapped_parquet
from model_code.market.readers.files import PassedOver
from model_code.market.readers.mapped_parquet import NEITHER, MappedParquetStore
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from tests.support.formats import TAQ_MAPPING, hive_tables, sample, taq, taq_tables
from tests.support.market import DATES, epoch_ns

DAYS = [sample(date=date) for date in DATES]
ABC = [InstrumentDay(date, "ABC.XNYS", 300) for date in DATES]
T0 = epoch_ns(DATES[0], 14.0)
UTC = pa.timestamp("ns", "UTC")
PLAIN = "quotes: {timestamp: t, bid_price: b, ask_price: a, symbol: s}\n"
TIMES = pa.array([T0, T0 + 1], UTC)


def table(**columns):
    return pa.table({"t": TIMES, "s": ["A", "A"], "b": [1.0, 2.0], "a": [1.5, 2.5]} | columns)


def store_of(folder, mapping, **tables):
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in tables.items():
        pq.write_table(part, folder / f"{name}.parquet")
    (folder / "mapping.yaml").write_text(mapping)
    return open_market(str(folder))


def quotes_of(store):
    return store.tables(store.catalog()[0]).quotes


@pytest.mark.parametrize("rows", [7, 1 << 18])
def test_quotes_and_trades_are_those_of_the_source(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(mapped_parquet, "BATCH_ROWS", rows)
    store = open_market(taq(tmp_path, DAYS))
    assert isinstance(store, MappedParquetStore)
    assert list(store.catalog()) == ABC
    assert store.passed_over() == ()
    for day, source in zip(ABC, DAYS, strict=True):
        tables = store.tables(day)
        quotes, trades = (part.drop_columns(["sequence"]) for part in hive_tables(source))
        assert tables.quotes.equals(quotes)
        assert tables.trades is not None
        assert tables.trades.select(trades.column_names).equals(trades)
        assert store.load(day).notes.aggressor == "flag"


def test_the_mapping_may_be_elsewhere(tmp_path):
    taq(tmp_path / "data", DAYS)
    mapping = (tmp_path / "data" / "mapping.yaml").rename(tmp_path / "m.yaml")
    assert list(open_market(f"parquet:{tmp_path}/data?mapping={mapping}").catalog()) == ABC
    with pytest.raises(ConfigError, match="there is no mapping"):
        open_market(f"parquet:{tmp_path}/data").catalog()


ONE_TABLE = """\
quotes:
  where: {column: kind, equals: Q}
  timestamp: t
  bid_price: b
  ask_price: a
  sequence: n
trades:
  where: {column: kind, equals: T}
  timestamp: t
  price: p
  size: z
  sequence: n
"""


def test_quotes_and_trades_of_one_table_are_told_apart(tmp_path):
    rows = pa.table(
        {
            "t": pa.array([T0, T0 + 5, T0 + 5, T0 + 6, T0 + 7], UTC),
            "symbol": ["A"] * 5,
            "kind": ["Q", "T", "Q", "H", "Q"],
            "b": [1.0, None, 1.1, None, 1.2],
            "a": [1.5, None, 1.6, None, 1.7],
            "p": [None, 1.5, None, None, None],
            "z": [None, 3, None, None, None],
            "n": [1, 2, 3, 4, 5],
        }
    )
    found = (store := store_of(tmp_path, ONE_TABLE, all=rows)).load(store.catalog()[0])
    assert found.ticks.num_rows == 3
    assert found.ticks["trade_count"].to_pylist() == [0, 1, 0]  # `sequence` says it was earlier
    assert found.notes.aggressor == "Lee-Ready"
    assert found.notes.warnings == (f"quotes left out, {NEITHER}: 1",)


def test_a_row_of_one_table_may_have_a_quote_and_a_trade(tmp_path):
    mapping = PLAIN + "trades: {timestamp: t, price: p, size: z, symbol: s}\n"
    store = store_of(tmp_path, mapping, all=table(p=[1.5, None], z=[2, None]))
    tables = store.tables(store.catalog()[0])
    assert tables.trades is not None
    assert (tables.quotes.num_rows, tables.trades["size"].to_pylist()) == (2, [2.0])


@pytest.mark.parametrize(
    ("times", "more"),
    [
        (pa.array([T0, T0 + 10**9], pa.timestamp("ns", "America/New_York")), ""),
        (pa.array([T0 // 1000, T0 // 1000 + 10**6], pa.timestamp("us", "UTC")), ""),
        (pa.array([T0 // 10**6, T0 // 10**6 + 1000]), "unit: ms, "),
        (pa.array([T0, T0 + 10**9]), "unit: ns, "),
        (pa.array([T0 - 4 * 3600 * 10**9, T0 + 10**9 - 4 * 3600 * 10**9], pa.timestamp("ns")), ""),
        (pa.array([36_000, 36_001]), "unit: s, date: d, "),
        (pa.array([36_000, 36_001], pa.time32("s")), "date: d, "),
        (pa.array([36_000 * 10**9, 36_001 * 10**9], pa.duration("ns")), "date: d, "),
    ],
    ids=["zone", "us", "integers", "ns", "local", "seconds", "time", "timespan"],
)
def test_every_kind_of_time_is_read(tmp_path, times, more):
    mapping = PLAIN.replace("{", "{" + more) + "time_zone: America/New_York\n"
    store = store_of(tmp_path, mapping, all=table(t=times, d=["2024-08-08", "20240808"]))
    found = quotes_of(store)["timestamp"].cast(pa.int64()).to_pylist()
    assert found == [T0, T0 + 10**9]


def test_dates_and_symbols_may_be_in_folder_names(tmp_path):
    mapping = PLAIN.replace("symbol: s", "symbol: sym, date: date, unit: s") + "time_zone: UTC\n"
    folder = tmp_path / "date=2024-08-08" / "sym=BRK%2FB"
    folder.mkdir(parents=True)
    pq.write_table(table(t=[1, 2]), folder / "x.parquet")
    store = store_of(tmp_path, mapping)
    assert store.catalog() == (InstrumentDay(DATES[0], "BRK/B", 2),)


def test_units_of_prices_and_sizes(tmp_path):
    mapping = PLAIN.replace("}", ", bid_size: x, ask_size: x, price_unit: 0.0001, size_unit: 100}")
    columns = table(b=[1_000_050, None], a=[1_000_051, 1_000_049], x=[3, 4])
    found = quotes_of(store_of(tmp_path, mapping, all=columns))
    assert found["bid_price"].to_pylist() == [100.005, None]
    assert found["ask_price"].to_pylist() == [100.0051, 100.0049]
    assert found["bid_size"].to_pylist() == [300.0, 400.0]


def test_quotes_without_sizes_have_none(tmp_path):
    assert quotes_of(store_of(tmp_path, PLAIN, all=table()))["bid_size"].null_count == 2


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"t": pa.array([1, 2])}, "", "its unit is not stated.*state `unit`"),
        ({"t": pa.array([T0, T0], UTC)}, "unit: ns, ", "it has its own unit.*remove `unit`"),
        ({"t": pa.array([T0, T0], pa.timestamp("ns"))}, "", "times without a zone.*`time_zone`"),
        ({"t": ["9:30", "9:31"]}, "", "it is no time"),
        ({"t": pa.array([1, 2], pa.time32("s"))}, "", "a time of day without a date"),
        ({"t": pa.array([1, 90_000])}, "unit: s, date: d, ", "no time of day"),
        ({"b": ["1.0", "2.0"]}, "", "column 'b' has the wrong type: expected double"),
        ({"s": [1, 2]}, "", "column 's' has the wrong type: expected string"),
    ],
)
def test_a_column_of_another_type_is_refused(tmp_path, change, more, message):
    columns = table(d=["2024-08-08"] * 2, **change)
    store = store_of(tmp_path, PLAIN.replace("{", "{" + more), all=columns)
    with pytest.raises(SchemaError, match=f"(?s){message}"):
        store.catalog()


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"t": pa.array([T0, None], UTC)}, "", "column 't' has 1 nulls"),
        ({"s": ["A", None]}, "", "column 's' has 1 nulls"),
        ({"t": pa.array([2**60] * 2, pa.timestamp("us"))}, "", "is not a time in us since 1970"),
        ({"t": pa.array([2**40] * 2, pa.timestamp("s", "UTC"))}, "", "is not a time in ms since"),
        (
            {"t": pa.array([T0 // 1000] * 2)},
            "unit: ns, ",
            "not a time in ns since 1970, but one in us",
        ),
        (
            {"t": pa.array([1, 2])},
            "unit: s, date: d, ",
            "column 'd' has 1 values that are no dates",
        ),
    ],
)
def test_a_wrong_value_is_refused(tmp_path, change, more, message):
    columns = table(d=["2024-08-08", "08/08/2024"], **change)
    mapping = PLAIN.replace("{", "{" + more) + "time_zone: UTC\n"
    with pytest.raises(DataError, match=message):
        store_of(tmp_path, mapping, all=columns).catalog()


def test_a_missing_column_is_named_with_the_nearest_one(tmp_path):
    store = store_of(
        tmp_path, PLAIN.replace("bid_price: b", "bid_price: bids"), all=table(bid=[1, 2])
    )
    with pytest.raises(
        SchemaError, match=r"column 'bids' \(quotes\.bid_price\) is missing"
    ) as caught:
        store.catalog()
    assert caught.value.remedy.endswith("did you mean 'bid'?")


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    store = store_of(tmp_path, PLAIN, all=table().append_column("b", pa.array([1.0, 2.0])))
    with pytest.raises(SchemaError, match="is there 2 times"):
        store.catalog()


@pytest.mark.parametrize("cut", [-100, 200, 0])
def test_a_truncated_file_is_refused(tmp_path, cut):
    taq(tmp_path, DAYS)
    path = tmp_path / "quotes_2024.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(MarketError, match="not readable as Parquet, truncated or corrupt"):
        open_market(str(tmp_path)).catalog()


def test_files_that_no_pattern_matches_and_empty_ones_are_named(tmp_path):
    taq(tmp_path, DAYS)
    pq.write_table(taq_tables(DAYS[0])[0].slice(0, 0), tmp_path / "quotes_none.parquet")
    (tmp_path / "readme.txt").write_text("x")
    assert set(open_market(str(tmp_path)).passed_over()) == {
        PassedOver("quotes_none.parquet", "no usable rows"),
        PassedOver("readme.txt", "no `files` of mapping.yaml matches it"),
    }


def test_a_side_in_neither_list_is_unknown(tmp_path):
    store_of(tmp_path, TAQ_MAPPING)
    quotes, trades = taq_tables(DAYS[0])
    side = np.array(trades["side"].to_pylist())
    side[5] = "?"
    place = trades.column_names.index("side")
    pq.write_table(quotes, tmp_path / "quotes_1.parquet")
    pq.write_table(trades.set_column(place, "side", pa.array(side)), tmp_path / "trades_1.parquet")
    store = open_market(str(tmp_path))
    assert store.load(store.catalog()[0]).notes.warnings == (
        f"1 of {len(side)} trades have no side: classified by Lee and Ready",
    )


def test_trade_ids_are_used_once_and_flags_may_be_booleans(tmp_path):
    mapping = PLAIN.replace("{", "{files: q.parquet, ") + (
        "trades: {files: t.parquet, timestamp: t, symbol: s, price: a, size: z, trade_id: i,\n"
        "  aggressor: {column: m, bought: [false], sold: [true]}}\n"
    )
    trades = table(z=[1, 1], i=[7, 7], m=[True, True])
    store = store_of(tmp_path, mapping, q=table(), t=trades)
    notes = store.load(store.catalog()[0]).notes
    assert notes.trades is not None
    assert (notes.trades.repeated, notes.trades.sold, notes.aggressor) == (1, 1, "flag")


def test_the_digest_covers_the_mapping(tmp_path):
    store = open_market(taq(tmp_path, DAYS))
    before = store.digest(ABC[0])
    assert open_market(str(tmp_path)).digest(ABC[0]) == before
    (tmp_path / "mapping.yaml").write_text(TAQ_MAPPING + "# again\n")
    assert open_market(str(tmp_path)).digest(ABC[0]) != before


def test_a_date_out_of_range_is_refused(tmp_path):
    mapping = PLAIN.replace("{", "{unit: s, date: d, ") + "time_zone: UTC\n"
    columns = table(t=[1, 2], d=["2024-08-08", "9999-01-01"])
    with pytest.raises(DataError, match="dates from 2024-08-08 to 9999-01-01"):
        store_of(tmp_path, mapping, all=columns).catalog()


def test_a_local_time_that_is_there_twice_is_refused(tmp_path):
    night = dt.datetime(2024, 11, 3, 1, 30)
    store = store_of(tmp_path, PLAIN + "time_zone: America/New_York\n", all=table(t=[night, night]))
    with pytest.raises(DataError, match="twice or never"):
        store.catalog()
