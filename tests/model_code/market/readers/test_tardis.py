"""Tardis' CSV, against the same day in the hive layout without its sequence numbers."""

import gzip

import numpy as np
import pyarrow as pa
import pytest

from model_code.errors import DataError, MarketError, SchemaError
from model_code.market.readers.files import PassedOver
from model_code.market.readers.tardis import CUT, TardisStore
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from tests.support.formats import TARDIS, hive_tables, sample, tardis, tardis_lines, write_tardis
from tests.support.market import DATES, epoch_ns

DAYS = [sample(date=date) for date in DATES]
ABC = [InstrumentDay(date, "ABCUSDT.binance", 300) for date in DATES]
LINES = tardis_lines(DAYS[0])
NAME = f"binance_quotes_{DATES[0]}_ABCUSDT.csv"
US = epoch_ns(DATES[0], 14.0) // 1000


def quote(us, cells="6,100.1,100.0,5", exchange="binance"):
    return f"{exchange},ABCUSDT,{us},{us},{cells}"


def trade(us, cells="7,buy,100.1,2"):
    return f"binance,ABCUSDT,{us},{us},{cells}"


def store_of(folder, quotes, trades=None, name=NAME):
    write_tardis(folder / name, "quotes", quotes)
    if trades is not None:
        write_tardis(folder / name.replace("quotes", "trades"), "trades", trades)
    return open_market(str(folder))


def load(store):
    return store.load(store.catalog()[0])


def test_quotes_and_trades_are_those_of_the_source(tmp_path):
    store = open_market(tardis(tmp_path, DAYS))
    assert isinstance(store, TardisStore)
    assert list(store.catalog()) == ABC
    assert store.passed_over() == ()
    for day, source in zip(ABC, DAYS, strict=True):
        tables = store.tables(day)
        quotes, trades = (table.drop_columns(["sequence"]) for table in hive_tables(source))
        assert tables.quotes.equals(quotes)
        assert tables.trades is not None
        assert tables.trades.select(trades.column_names).equals(trades)
        assert store.load(day).notes.aggressor == "flag"


def test_the_time_is_the_local_one(tmp_path):
    store = store_of(tmp_path, [f"binance,ABCUSDT,{US},{US + 7},6,100.1,100.0,5"])
    time = load(store).ticks["timestamp"].cast(pa.int64()).to_pylist()
    assert time == [(US + 7) * 1000]


def test_a_file_of_two_days_and_two_exchanges_is_split(tmp_path):
    lines = LINES["quotes"] + tardis_lines(DAYS[1])["quotes"]
    lines += tardis_lines(DAYS[0], exchange="deribit")["quotes"]
    write_tardis(tmp_path / "quotes.csv", "quotes", lines)
    store = open_market(f"tardis:{tmp_path}")
    assert [(day.date, day.symbol, day.rows) for day in store.catalog()] == [
        (DATES[0], "ABCUSDT.binance", 300),
        (DATES[0], "ABCUSDT.deribit", 300),
        (DATES[1], "ABCUSDT.binance", 300),
    ]
    (day,) = [day for day in store.catalog() if day.symbol.endswith("deribit")]
    assert store.read(day)["bid_price"].to_pylist() == (DAYS[0].bid / 100).tolist()


def test_a_single_file_is_a_store(tmp_path):
    store_of(tmp_path, LINES["quotes"])
    assert load(open_market(str(tmp_path / NAME))).ticks.num_rows == 300


def test_empty_sides_are_missing_and_faulty_rows_stay(tmp_path):
    cells = [",,100.0,5", "6,100.1,,", "6,100.0,100.0,5", "6,99.0,100.0,5", "-6,100.1,100.0,5"]
    ticks = load(store_of(tmp_path, [quote(US + i, cell) for i, cell in enumerate(cells)])).ticks
    assert ticks.num_rows == len(cells)
    assert np.flatnonzero(np.isnan(ticks["ask_price"].to_numpy())).tolist() == [0]
    assert np.flatnonzero(np.isnan(ticks["bid_price"].to_numpy())).tolist() == [1]
    assert ticks["ask_size"].to_pylist() == [None, 6.0, 6.0, 6.0, -6.0]


def test_repeated_bad_and_unknown_trades_are_counted(tmp_path):
    trades = [
        "7,buy,100.1,2",
        "7,buy,100.1,2",
        "8,unknown,100.1,1",
        "9,sell,100.0,-1",
        ",sell,100.0,3",
    ]
    store = store_of(
        tmp_path,
        [quote(US), quote(US + 9)],
        [trade(US + 1 + i, cells) for i, cells in enumerate(trades)],
    )
    found = load(store)
    assert found.notes.trades is not None
    assert (found.notes.trades.rows, found.notes.trades.repeated, found.notes.trades.bad) == (
        5,
        1,
        1,
    )
    assert found.ticks["buy_volume"].to_pylist() == [0.0, 3.0]
    assert found.ticks["sell_volume"].to_pylist() == [0.0, 3.0]
    assert found.notes.warnings[0].startswith("1 of 5 trades have no side")


@pytest.mark.parametrize("us", [US // 1000, US * 1000, 0])
def test_a_stamp_in_another_unit_is_refused_with_its_line(tmp_path, us):
    store = store_of(tmp_path, [quote(US), quote(us)])
    with pytest.raises(DataError, match=f"{us} is not a time in us") as caught:
        store.catalog()
    assert caught.value.where.endswith(f"{NAME}, local_timestamp, row 3")


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        (
            f"binance,ABCUSDT,{US},{US},6,x,100.0,5",
            SchemaError,
            "'ask_price': expected Float64.*'x'",
        ),
        (f"binance,ABCUSDT,{US},{US},6,100.0", SchemaError, "expected 8 cells"),
        (f"binance,ABCUSDT,{US},,6,100.1,100.0,5", SchemaError, "'local_timestamp'"),
        (f"binance,,{US},{US},6,100.1,100.0,5", DataError, "no exchange or no symbol"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, kind, message):
    store = store_of(tmp_path, [quote(US), line])
    with pytest.raises(kind, match=message) as caught:
        store.catalog()
    assert caught.value.where.endswith(f"{NAME}, line 3")


def test_a_side_that_is_none_is_refused(tmp_path):
    store = store_of(tmp_path, [quote(US)], [trade(US), trade(US, "8,BUY,100.1,2")])
    with pytest.raises(DataError, match="'BUY' is none of buy, sell, unknown") as caught:
        store.catalog()
    assert caught.value.where.endswith("line 3")


def test_a_missing_header_is_refused(tmp_path):
    (tmp_path / NAME).write_text(quote(US) + "\n")
    with pytest.raises(SchemaError, match=r"the header is 'binance,ABCUSDT.*expected exchange,"):
        open_market(str(tmp_path)).catalog()


def test_a_last_line_without_a_line_end_is_left_out_and_counted(tmp_path):
    store_of(tmp_path, LINES["quotes"])
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-2])
    store = open_market(str(tmp_path))
    assert store.catalog()[0].rows == 299
    assert load(store).notes.warnings == (f"quotes left out, {CUT}: 1",)
    path.write_bytes(path.read_bytes() + b"\nbinance,AB")
    with pytest.raises(DataError, match="truncated: the last line is 'binance,AB'"):
        open_market(str(tmp_path)).catalog()


def test_a_truncated_archive_is_refused(tmp_path):
    path = write_tardis(tmp_path / f"{NAME}.gz", "quotes", LINES["quotes"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MarketError, match="cannot decompress"):
        open_market(str(tmp_path)).catalog()


def test_files_without_rows_and_of_other_types_are_named(tmp_path):
    tardis(tmp_path, DAYS)
    (tmp_path / f"binance_quotes_{DATES[0]}_EMPTY.csv").write_text("")
    write_tardis(tmp_path / f"binance_quotes_{DATES[0]}_NONE.csv", "quotes", [])
    (tmp_path / "book.csv").write_text("exchange,symbol,timestamp\n")
    (tmp_path / "notes.txt").write_text("x")
    write_tardis(
        tmp_path / f"binance_trades_{DATES[0]}_XYZ.csv", "trades", ["x,XYZ" + trade(US)[15:]]
    )
    assert set(open_market(str(tmp_path)).passed_over()) == {
        PassedOver(f"binance_quotes_{DATES[0]}_EMPTY.csv", "the file is empty"),
        PassedOver(f"binance_quotes_{DATES[0]}_NONE.csv", "no usable rows"),
        PassedOver("book.csv", "its header is not of quotes or trades"),
        PassedOver("notes.txt", "not a .csv or .csv.gz file"),
        PassedOver(f"binance_trades_{DATES[0]}_XYZ.csv", "trades of XYZ.x without quotes"),
    }


def test_trades_that_are_absent_on_one_day_are_refused(tmp_path):
    tardis(tmp_path, DAYS)
    (tmp_path / f"binance_trades_{DATES[1]}_ABCUSDT.csv.gz").unlink()
    store = open_market(str(tmp_path))
    assert store.load(ABC[0]).notes.trades is not None
    with pytest.raises(MarketError, match="no trades on 2024-08-09, but on 2024-08-08"):
        store.load(ABC[1])


def test_an_overlapping_export_is_refused(tmp_path):
    tardis(tmp_path, DAYS)
    write_tardis(tmp_path / "again_quotes_2024-08-08_ABCUSDT.csv", "quotes", LINES["quotes"])
    store = open_market(str(tmp_path))
    with pytest.raises(MarketError, match="two files cover the same time of the quotes"):
        store.load(ABC[0])


def test_gz_files_hold_the_documented_header(tmp_path):
    tardis(tmp_path, DAYS[:1])
    data = gzip.decompress((tmp_path / f"{NAME}.gz").read_bytes())
    assert data.startswith(TARDIS["quotes"].encode() + b"\nbinance,ABCUSDT,")
