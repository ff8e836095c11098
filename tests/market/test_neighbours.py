"""Our own relatives of the cases: each kind of fault wherever it can occur.

Three readers, quotes and trades, the first day and the second.
"""

import datetime as dt
import gzip
import shutil
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.errors import DataError, MarketError, SchemaError, TicklineError
from model_code.market.notes import Loaded, TradeNotes
from model_code.market.schema import InstrumentDay
from model_code.market.selection import select
from model_code.market.store import open_market
from tests.market.judged import judge
from tests.market.small import (
    DATES,
    DEALS,
    DESK,
    ROWS,
    SPEC,
    WITH_TRADES,
    WRITERS,
    aggregate_text,
    arrow,
    binance,
    book,
    book_text,
    day_of,
    days_of,
    deals,
    desk,
    desk_text,
    hive,
    market,
    put,
    sift,
    trades_text,
    zipped,
)

D1, D2 = DATES
each_reader = pytest.mark.parametrize("reader", WRITERS)
each_trades = pytest.mark.parametrize("kind", WITH_TRADES)
each_date = pytest.mark.parametrize("date", DATES, ids=["day 1", "day 2"])
SYMBOL = {"hive": "ABC", "binance": "ABC.binance", "desk": "ABC"}
UNREADABLE = {"hive": "not readable as Parquet", "zip": "not readable as zip"}


def loaded(root: Path, date: dt.date) -> Loaded:
    return open_market(str(root)).load(day_of(root, date))


def refused(root: Path, date: dt.date, kind: type[TicklineError] = TicklineError) -> str:
    """The message with which a day of the catalogue is refused."""
    with pytest.raises(kind) as caught:
        loaded(root, date)
    assert "unexpected" not in str(caught.value).lower()
    return str(caught.value)


def counted(root: Path, date: dt.date) -> TradeNotes:
    notes = loaded(root, date).notes.trades
    assert notes is not None
    return notes


def traded(root: Path, date: dt.date) -> tuple[int, float]:
    """Trades and volume that the rows count."""
    ticks = loaded(root, date).ticks
    volume = sum(ticks["buy_volume"].to_pylist()) + sum(ticks["sell_volume"].to_pylist())
    return sum(ticks["trade_count"].to_pylist()), round(volume, 6)


def edited(frame: pl.DataFrame, row: int, **values: float) -> pl.DataFrame:
    """The frame with other values in one row."""
    here = pl.int_range(pl.len()) == row
    return frame.with_columns(
        pl.when(here).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def insert(frame: pl.DataFrame, row: int, *new: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame[:row], *new, frame[row:]], how="vertical_relaxed")


# ---------------------------------------------------------------- quotes: repeats and order


@each_reader
@each_date
def test_a_quote_that_returns_to_its_value_inside_one_stamp_keeps_all_rows(tmp_path, reader, date):
    quotes, _ = market()
    a = quotes[date][100:101]
    b = a.with_columns(pl.col("bid_size") + 7)
    quotes[date] = insert(quotes[date], 101, b, a)
    root = WRITERS[reader](tmp_path, quotes)
    assert sift(root, day_of(root, date)) == (ROWS + 2, ROWS + 2, 0, 0, {})


@each_reader
@each_date
def test_a_row_that_equals_the_row_above_is_dropped_and_counted(tmp_path, reader, date):
    quotes, _ = market()
    quotes[date] = insert(quotes[date], 101, quotes[date][100:101])
    root = WRITERS[reader](tmp_path, quotes)
    found = judge(root, day_of(root, date), SPEC)
    assert found.counts == (ROWS + 1, ROWS, 0, 1)
    assert found.report.passed
    assert found.summary == ("1 row repeats the row above, left out",)


@each_date
def test_a_repeated_update_id_of_an_archive_is_dropped_and_counted(tmp_path, date):
    quotes, _ = market()
    quotes[date] = quotes[date].with_row_index("update_id")
    quotes[date] = insert(quotes[date], 101, quotes[date][50:51])
    root = binance(tmp_path, quotes)
    found = judge(root, day_of(root, date), SPEC)
    assert found.counts == (ROWS, ROWS, 0, 0)
    assert found.summary == ("1 row repeats an update id, left out",)


@each_reader
@each_date
def test_a_replayed_block_of_rows_leaves_the_day_as_it_was(tmp_path, reader, date):
    quotes, _ = market()
    plain = WRITERS[reader](tmp_path / "plain", quotes)
    usual = loaded(plain, date).ticks
    frame = quotes[date].with_row_index("update_id") if reader == "binance" else quotes[date]
    quotes[date] = insert(frame, 120, frame[100:120])
    root = WRITERS[reader](tmp_path / "replayed", quotes)
    found = judge(root, day_of(root, date), SPEC)
    if reader == "binance":
        assert found.notes.repeated == 20
        assert found.counts == (ROWS, ROWS, 0, 0)
    else:
        # the block's last row has the stamp of the row above the block: no clock goes back there
        assert found.counts == (ROWS + 20, ROWS + 1, 19, 0)
        assert found.report.faults == {"clock_back": 19}
    names = [name for name in usual.column_names if name != "feature_ema_1min"]
    clean = pl.DataFrame(found.clean.select(names)).unique(maintain_order=True)
    assert clean.equals(pl.DataFrame(usual.select(names)))


@each_date
@pytest.mark.parametrize("reader", ["hive", "desk"])
@pytest.mark.parametrize("seconds", [2, 30, -2, -30])
def test_one_stamp_ahead_or_behind_costs_one_row(tmp_path, reader, seconds, date):
    quotes, _ = market()
    time = int(quotes[date]["timestamp"][200]) + seconds * 10**9
    quotes[date] = edited(quotes[date], 200, timestamp=time)
    root = WRITERS[reader](tmp_path, quotes)
    assert sift(root, day_of(root, date)) == (ROWS + 0, ROWS - 1, 1, 0, {"clock_back": 1})


@each_date
@pytest.mark.parametrize("seconds", [2, 30, -2, -30])
def test_one_stamp_of_an_archive_ahead_or_behind_is_moved_and_counted(tmp_path, seconds, date):
    quotes, _ = market()
    time = int(quotes[date]["timestamp"][200]) + seconds * 10**9
    quotes[date] = edited(quotes[date], 200, timestamp=time)
    root = binance(tmp_path, quotes)
    found = judge(root, day_of(root, date), SPEC)
    assert found.notes.moved == 1
    assert found.report.rows == ROWS
    assert "1 row put in order by update id" in found.summary


@each_trades
@each_date
def test_a_stamp_ahead_does_not_shift_trades_to_other_rows(tmp_path, kind, date):
    quotes, trades = market()
    plain = WITH_TRADES[kind](tmp_path / "plain", quotes, trades)
    time = int(quotes[date]["timestamp"][200]) + 30 * 10**9
    quotes[date] = edited(quotes[date], 200, timestamp=time)
    root = WITH_TRADES[kind](tmp_path / "ahead", quotes, trades)
    assert traded(root, date) == traded(plain, date)


# ---------------------------------------------------------------- quotes: prices


@each_reader
@pytest.mark.parametrize(("bps", "mid"), [(30, 333), (100, 100)])
@pytest.mark.parametrize("with_trades", [False, True])
def test_every_move_of_a_coarse_tick_is_real(tmp_path, reader, bps, mid, with_trades):
    quotes, trades = market(tick=1e-8, mid=mid)
    root = WRITERS[reader](tmp_path, quotes, trades if with_trades else None)
    for day in days_of(root):
        assert sift(root, day) == (ROWS, ROWS, 0, 0, {})
        notes = open_market(str(root)).load(day).notes.trades
        assert notes is None or (notes.bad, notes.outside) == (0, 0)


@each_reader
def test_negative_prices_are_unsupported_and_never_to_be_allowed(tmp_path, reader):
    quotes, _ = market(mid=-3700)
    root = WRITERS[reader](tmp_path, quotes)
    found = judge(root, day_of(root, D1), SPEC)
    assert found.counts == (ROWS, 0, ROWS, 0)
    with pytest.raises(DataError, match="prices at or below zero are unsupported") as caught:
        found.report.require_passed()
    assert "max-fault-fraction" not in str(caught.value)


@each_reader
@each_date
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_one_impossible_price_costs_one_row(tmp_path, reader, value, date):
    quotes, _ = market()
    # the desk's last_trade and vwap columns are the row's own bid and the first one
    quotes[date] = edited(quotes[date], 200, ask_price=value)
    root = WRITERS[reader](tmp_path, quotes)
    rows, clean, bad, repeated, _ = sift(root, day_of(root, date))
    assert (rows, clean, bad, repeated) == (ROWS, ROWS - 1, 1, 0)


@pytest.mark.parametrize(("tick", "mid", "warned"), [(0.01, 10_000, 0), (0.01, 12_345_678, 1)])
def test_float32_prices_are_warned_of_where_their_spacing_hides_ticks(tmp_path, tick, mid, warned):
    quotes, _ = market(tick=tick, mid=mid)
    single = {
        date: frame.with_columns(pl.col("bid_price", "ask_price").cast(pl.Float32))
        for date, frame in quotes.items()
    }
    root = hive(tmp_path, single)
    for date in DATES:
        warnings = loaded(root, date).notes.warnings
        assert len(warnings) == warned
        assert all("are float32" in text for text in warnings)


# ---------------------------------------------------------------- quotes: the whole day


@each_reader
@each_date
def test_a_lunch_break_fails_unless_it_is_a_known_break(tmp_path, reader, date):
    quotes = {
        day: pl.concat([book(day, hour=2), book(day, hour=5, mid=10_001)]).with_columns(
            bid_size=pl.int_range(pl.len()) % 30 + 1.0
        )
        for day in DATES
    }
    root = WRITERS[reader](tmp_path, quotes)
    day = day_of(root, date)
    report = judge(root, day, SPEC).report
    (failure,) = report.failures
    assert failure.startswith("maximum_gap: silent for 3 h 0 min from 02:00:0")
    assert "calendar" in report.remedies[0]
    breaks = tuple(
        (
            dt.datetime.combine(date, dt.time(hour, 0, second), dt.UTC),
            dt.datetime.combine(date, dt.time(hour + 1), dt.UTC),
        )
        for hour, second in ((2, 5), (3, 0), (4, 0))
    )
    assert judge(root, day, SPEC, breaks).report.passed


@each_reader
@pytest.mark.parametrize("n", [1, 2, 20])
def test_an_instrument_of_few_rows_is_a_failed_day_not_an_error(tmp_path, reader, n):
    quotes, _ = market(n)
    root = WRITERS[reader](tmp_path, quotes)
    report = judge(root, day_of(root, D2)).report
    assert f"minimum_rows: {n} clean rows, expected at least 1,000" in report.failures


@each_reader
def test_quotes_of_another_day_fail_as_outside_the_session(tmp_path, reader):
    quotes, _ = market()
    if reader == "desk":  # rows are split by their own dates, whatever the file is called
        root = desk(tmp_path, {D1: quotes[D2]})
        assert [day.date for day in days_of(root)] == [D2]
        return
    root = WRITERS[reader](tmp_path, {D1: quotes[D2], D2: quotes[D2]})
    assert judge(root, day_of(root, D1), SPEC).report.faults == {"outside_session": ROWS}


@each_reader
def test_dates_in_the_future_are_left_out_with_a_warning(tmp_path, reader):
    future = dt.date(2199, 1, 1)
    quotes = {date: book(date) for date in (*DATES, future)}
    root = WRITERS[reader](tmp_path, quotes)
    found = select(
        open_market(str(root)).catalog(),
        instruments=(),
        train_days=5,
        test_date=None,
        where=str(root),
        today=dt.date(2025, 6, 1),
    )
    assert [day.date for day in (*found.train, *found.test)] == [D1, D2]
    assert found.warnings == ("dates in the future left out: 2199-01-01",)


# ---------------------------------------------------------------- trades: absent, cut, shifted


@each_trades
@each_date
def test_trades_absent_on_one_day_are_an_error_that_names_file_and_days(tmp_path, kind, date):
    quotes, trades = market()
    other = D1 if date == D2 else D2
    root = WITH_TRADES[kind](tmp_path, quotes, {other: trades[other]})
    text = refused(root, date, MarketError)
    assert f"has no trades on {date}, but on {other}" in text
    assert str(root) in text
    assert loaded(root, other).notes.trades is not None


@each_trades
@each_date
def test_empty_trades_are_an_error_that_names_file_and_day(tmp_path, kind, date):
    quotes, trades = market()
    trades[date] = trades[date][:0]
    root = WITH_TRADES[kind](tmp_path, quotes, trades)
    text = refused(root, date, DataError)
    assert f"on {date} have no rows" in text
    name = f"date={date}.parquet" if kind == "hive" else f"ABC-{kind}-{date}.zip"
    assert name in text


@each_trades
@each_date
def test_trades_cut_short_are_warned_of(tmp_path, kind, date):
    quotes, trades = market()
    trades[date] = trades[date][:40]
    root = WITH_TRADES[kind](tmp_path, quotes, trades)
    warnings = loaded(root, date).notes.warnings
    assert any("cover" in text and "of the quotes'" in text for text in warnings)
    assert traded(root, date)[0] == 40


@each_trades
@each_date
@pytest.mark.parametrize("hours", [8, -24])
def test_trades_of_another_time_fail_the_day_with_their_number(tmp_path, kind, hours, date):
    quotes, trades = market()
    trades[date] = trades[date].with_columns(pl.col("timestamp") + hours * 3600 * 10**9)
    root = WITH_TRADES[kind](tmp_path, quotes, trades)
    found = judge(root, day_of(root, date), SPEC)
    assert f"{DEALS} of {DEALS} trades lie outside" in " ".join(found.report.failures)
    assert found.traded[0] == 0


@each_trades
@each_date
def test_trades_cut_inside_the_file_are_an_error_that_names_the_file(tmp_path, kind, date):
    quotes, trades = market()
    root = WITH_TRADES[kind](tmp_path, quotes, trades)
    (path,) = [p for p in root.rglob(f"*{date}*") if "rades" in str(p.relative_to(root))]
    path.write_bytes(path.read_bytes()[:-200])
    text = refused(root, date, MarketError)
    assert UNREADABLE["hive" if kind == "hive" else "zip"] in text
    assert str(path) in text


# ---------------------------------------------------------------- trades: repeated and bad


@each_date
@pytest.mark.parametrize("name", ["trade_id", "id", "trades", "aggTrades"])
def test_trades_whose_ids_repeat_count_once(tmp_path, name, date):
    quotes, trades = market()
    writer = WITH_TRADES.get(name, hive)
    plain = writer(tmp_path / "plain", quotes, trades)
    trades[date] = pl.concat([trades[date], trades[date]])
    if name == "id":
        trades[date] = trades[date].rename({"trade_id": "id"})
    root = writer(tmp_path / "twice", quotes, trades)
    assert counted(root, date).rows == 2 * DEALS
    assert counted(root, date).repeated == DEALS
    assert traded(root, date) == traded(plain, date)
    assert loaded(root, date).ticks["vwap"].equals(loaded(plain, date).ticks["vwap"])


@pytest.mark.parametrize("kind", [pa.string(), pa.int32(), pa.float64(), pa.decimal256(40, 2)])
def test_trade_ids_of_any_type_count_once_or_are_refused_by_name(tmp_path, kind):
    quotes, trades = market()
    root = hive(tmp_path, quotes, {date: pl.concat([frame] * 2) for date, frame in trades.items()})
    path = root / "trades" / "symbol=ABC" / f"date={D1}.parquet"
    table = pq.ParquetFile(path).read()
    ids = table["trade_id"].cast(kind)
    pq.write_table(table.drop_columns(["trade_id"]).append_column("trade_id", ids), path)
    if pa.types.is_decimal(kind):
        text = refused(root, D1, SchemaError)
        assert "column 'trade_id' has the wrong type: expected integers or text" in text
        assert str(path) in text
    else:
        assert counted(root, D1).repeated == DEALS


@each_date
def test_equal_trades_without_ids_all_count(tmp_path, date):
    quotes, trades = market()
    trades[date] = pl.concat([trades[date], trades[date]]).drop("trade_id")
    root = hive(tmp_path, quotes, trades)
    assert traded(root, date)[0] == 2 * DEALS


BAD = [
    {"price": -100.0}, {"price": 0.0}, {"price": float("nan")}, {"price": float("inf")},
    {"price": 10_000.0}, {"price": 1.0}, {"size": -0.5}, {"size": float("nan")},
    {"size": float("inf")},
]  # fmt: skip


@each_trades
@each_date
@pytest.mark.parametrize("values", BAD, ids=str)
def test_one_bad_trade_is_counted_and_changes_nothing(tmp_path, kind, values, date):
    quotes, trades = market()
    writer = WITH_TRADES[kind]
    without = dict(trades) | {date: trades[date].filter(pl.int_range(pl.len()) != 60)}
    usual = loaded(writer(tmp_path / "without", quotes, without), date).ticks
    trades[date] = edited(trades[date], 60, **values)
    root = writer(tmp_path / "bad", quotes, trades)
    notes = counted(root, date)
    assert (notes.rows, notes.bad, notes.empty) == (DEALS, 1, 0)
    assert loaded(root, date).ticks.equals(usual)
    assert sift(root, day_of(root, date))[1] == ROWS


@each_trades
@each_date
def test_trades_of_size_0_are_counted_and_change_nothing(tmp_path, kind, date):
    quotes, trades = market()
    writer = WITH_TRADES[kind]
    keep = pl.int_range(pl.len()) % 3 != 0
    without = dict(trades) | {date: trades[date].filter(keep)}
    usual = loaded(writer(tmp_path / "without", quotes, without), date).ticks
    size = pl.when(keep).then("size").otherwise(0.0).alias("size")
    trades[date] = trades[date].with_columns(size)
    root = writer(tmp_path / "empty", quotes, trades)
    assert counted(root, date).empty == DEALS // 3
    assert loaded(root, date).ticks.equals(usual)


@each_date
def test_trades_without_an_aggressor_flag_are_classified_by_the_quotes(tmp_path, date):
    quotes, trades = market()
    flagged = loaded(hive(tmp_path / "flag", quotes, trades), date)
    bare = {day: frame.drop("buyer_is_maker") for day, frame in trades.items()}
    root = hive(tmp_path / "bare", quotes, bare)
    found = judge(root, day_of(root, date), SPEC)
    assert found.notes.aggressor == "Lee-Ready"
    assert found.ticks.equals(flagged.ticks)
    assert found.summary == ("trades without an aggressor flag: classified by Lee and Ready",)


@pytest.mark.parametrize("kind", ["trades", "aggTrades"])
def test_trades_out_of_order_are_put_in_order(tmp_path, kind):
    quotes, trades = market()
    writer = WITH_TRADES[kind]
    usual = loaded(writer(tmp_path / "plain", quotes, trades), D1).ticks
    root = writer(
        tmp_path / "back", quotes, {day: frame.reverse() for day, frame in trades.items()}
    )
    assert loaded(root, D1).ticks.equals(usual)


# ---------------------------------------------------------------- Hive: spellings and parts


def spell(date: dt.date) -> dict[str, str]:
    return {
        "compact": f"date={date:%Y%m%d}.parquet",
        "compact folder": f"date={date:%Y%m%d}/part-0.parquet",
        "year month day": f"year={date.year}/month={date.month}/day={date.day}/part-0.parquet",
        "zeros": f"year={date.year}/month={date:%m}/day={date:%d}/part-0.parquet",
        "DuckDB": f"date={date}/data_0.parquet",
        "Spark": f"date={date}/part-00000-1c2d-4e5f.c000.snappy.parquet",
        "folder as a file": f"date={date}.parquet/part-0.parquet",
        "midnight": f"date={date}%2000%3A00%3A00/part-0.parquet",
    }


@pytest.mark.parametrize("spelling", spell(D1))
def test_a_date_in_another_spelling_is_read(tmp_path, spelling):
    quotes, trades = market()
    usual = hive(tmp_path / "usual", quotes, trades)
    root = tmp_path / "other"
    for kind, days in (("quotes", quotes), ("trades", trades)):
        for date, frame in days.items():
            path = put(root, kind, "ABC", spell(date)[spelling], arrow(frame))
            path.with_name("_SUCCESS").touch()
            path.with_name(f".{path.name}.crc").touch()
    assert days_of(root) == days_of(usual)
    assert open_market(str(root)).passed_over() == ()
    for date in DATES:
        assert loaded(root, date).ticks.equals(loaded(usual, date).ticks)


@pytest.mark.parametrize("name", ["date=2025-02-30.parquet", "day 1.parquet", "date=x/p.parquet"])
def test_a_store_without_a_readable_date_is_an_error_that_shows_what_was_found(tmp_path, name):
    quotes, _ = market()
    put(tmp_path, "quotes", "ABC", name, arrow(quotes[D1]))
    store = open_market(str(tmp_path))
    with pytest.raises(MarketError, match="no instrument-day found; 1 files: quotes/symbol=ABC"):
        store.catalog()
    assert [item.path for item in store.passed_over()] == [f"quotes/symbol=ABC/{name}"]


@each_date
@pytest.mark.parametrize("kind", ["quotes", "trades"])
def test_parts_1_to_12_are_read_in_natural_order(tmp_path, kind, date):
    both = dict(zip(("quotes", "trades"), market(), strict=True))
    usual = hive(tmp_path / "usual", both["quotes"], both["trades"])
    root = Path(shutil.copytree(usual, tmp_path / "parts"))
    (root / kind / "symbol=ABC" / f"date={date}.parquet").unlink()
    frame = both[kind][date]
    size = frame.height // 12 + 1
    for k in range(12):
        part = arrow(frame[k * size : (k + 1) * size])
        put(root, kind, "ABC", f"date={date}/part-{k + 1}.parquet", part)
    assert loaded(root, date).ticks.equals(loaded(usual, date).ticks)
    assert sift(root, day_of(root, date)) == (ROWS, ROWS, 0, 0, {})


@pytest.mark.parametrize("suffix", [".bak", ".tmp", ".part", ".crc", "~", ".filepart"])
def test_a_copy_of_a_day_is_named_and_not_read(tmp_path, suffix):
    quotes, trades = market()
    root = hive(tmp_path, quotes, trades)
    path = root / "quotes" / "symbol=ABC" / f"date={D1}.parquet"
    shutil.copy(path, f"{path}{suffix}")
    (passed,) = open_market(str(root)).passed_over()
    assert passed.path == f"quotes/symbol=ABC/{path.name}{suffix}"
    assert sift(root, day_of(root, D1)) == (ROWS, ROWS, 0, 0, {})


@pytest.mark.parametrize("kind", ["quotes", "trades"])
@pytest.mark.parametrize("faulty", ["absent", "text"])
def test_a_part_without_usable_stamps_is_an_error_that_names_it(tmp_path, kind, faulty):
    both = dict(zip(("quotes", "trades"), market(), strict=True))
    root = hive(tmp_path, both["quotes"], both["trades"])
    (root / kind / "symbol=ABC" / f"date={D1}.parquet").unlink()
    frame = both[kind][D1]
    put(root, kind, "ABC", f"date={D1}/part-0.parquet", arrow(frame[:60]))
    bad = frame[60:].drop("timestamp")
    bad = bad if faulty == "absent" else bad.with_columns(timestamp=pl.lit("14:00"))
    path = put(root, kind, "ABC", f"date={D1}/part-1.parquet", bad.to_arrow())
    text = refused(root, D1, SchemaError)
    assert "column 'timestamp'" in text
    assert str(path) in text


@each_date
@pytest.mark.parametrize("kind", ["quotes", "trades"])
def test_both_parts_of_an_overlap_are_named(tmp_path, kind, date):
    both = dict(zip(("quotes", "trades"), market(), strict=True))
    root = hive(tmp_path, both["quotes"], both["trades"])
    (root / kind / "symbol=ABC" / f"date={date}.parquet").unlink()
    frame = both[kind][date]
    for name, part in (("a", frame[:80]), ("b", frame[60:])):
        put(root, kind, "ABC", f"date={date}/{name}.parquet", arrow(part))
    text = refused(root, date, MarketError)
    assert f"date={date}/a.parquet" in text
    assert f"date={date}/b.parquet" in text


def test_a_day_as_a_file_and_as_a_folder_is_an_overlap(tmp_path):
    quotes, _ = market()
    root = hive(tmp_path, quotes)
    put(root, "quotes", "ABC", f"date={D1}/part-0.parquet", arrow(quotes[D1]))
    text = refused(root, D1, MarketError)
    assert f"date={D1}.parquet" in text
    assert f"date={D1}/part-0.parquet" in text


# ---------------------------------------------------------------- columns


@each_date
@pytest.mark.parametrize("size", ["bid_size", "ask_size"])
def test_one_missing_size_is_an_error_that_names_it(tmp_path, size, date):
    quotes, _ = market()
    quotes[date] = quotes[date].drop(size)
    text = refused(hive(tmp_path, quotes), date, SchemaError)
    assert f"column '{size}' is missing" in text
    assert f"date={date}.parquet" in text


@pytest.mark.parametrize("size", ["bid_size", "ask_size"])
def test_a_missing_size_of_the_desk_is_an_error_that_names_it(tmp_path, size):
    header = DESK.replace(f",{size}", "")
    (tmp_path / f"ABC_{D1}.csv").write_text(desk_text(book(D1), header))
    with pytest.raises(SchemaError, match=f"column '{size}' is missing") as caught:
        open_market(str(tmp_path)).catalog()
    assert f"ABC_{D1}.csv, line 1" in str(caught.value)


@each_date
@pytest.mark.parametrize("kind", ["quotes", "trades"])
def test_an_unknown_column_of_parquet_is_named(tmp_path, kind, date):
    both = dict(zip(("quotes", "trades"), market(), strict=True))
    both[kind][date] = both[kind][date].with_columns(venue=pl.lit("X"), depth=1)
    root = hive(tmp_path, both["quotes"], both["trades"])
    assert loaded(root, date).notes.warnings == (f"columns not used ({kind}): venue, depth",)


def test_an_unknown_column_of_the_desk_is_named(tmp_path):
    frame = book(D1).with_columns(venue=pl.lit("X"))
    (tmp_path / f"ABC_{D1}.csv").write_text(desk_text(frame, f"venue,{DESK}"))
    assert loaded(tmp_path, D1).notes.warnings == ("columns not used: venue",)


@pytest.mark.parametrize("name", ["bid_price", "timestamp", "ask_size"])
def test_a_column_twice_is_an_error_that_names_file_and_column(tmp_path, name):
    quotes, trades = market()
    table = arrow(quotes[D1])
    root = hive(tmp_path / "hive", quotes, trades)
    put(root, "quotes", "ABC", f"date={D1}.parquet", table.append_column(name, table[name]))
    assert f"column '{name}' is there 2 times" in refused(root, D1, SchemaError)
    text = desk_text(quotes[D1])
    path = tmp_path / "desk" / f"ABC_{D1}.csv"
    path.parent.mkdir()
    path.write_text(text.replace(DESK, f"{DESK},{name}").replace(",0.5\n", ",0.5,1\n"))
    with pytest.raises(SchemaError, match=f"column '{name}' is there twice") as caught:
        open_market(str(path.parent)).catalog()
    assert f"{path}, line 1" in str(caught.value)


@pytest.mark.parametrize("kind", [pa.int64(), pa.float16(), pa.list_(pa.float64())])
@pytest.mark.parametrize("folder", ["quotes", "trades"])
def test_symbols_that_are_not_text_are_an_error_that_names_file_and_column(tmp_path, folder, kind):
    both = dict(zip(("quotes", "trades"), market(), strict=True))
    root = hive(tmp_path, both["quotes"], both["trades"])
    table = arrow(both[folder][D1])
    symbols = pa.array([[1.0] if pa.types.is_list(kind) else 1] * table.num_rows, kind)
    path = put(root, folder, "ABC", f"date={D1}.parquet", table.append_column("symbol", symbols))
    text = refused(root, D1, SchemaError)
    assert "column 'symbol' has the wrong type" in text
    assert str(path) in text


def test_a_column_of_the_trades_twice_is_an_error_that_names_file_and_column(tmp_path):
    quotes, trades = market()
    root = hive(tmp_path, quotes, trades)
    table = arrow(trades[D2])
    path = put(root, "trades", "ABC", f"date={D2}.parquet", table.append_column("size", table[1]))
    text = refused(root, D2, SchemaError)
    assert "column 'size' is there 2 times" in text
    assert str(path) in text


@pytest.mark.parametrize("kind", [pl.Int8, pl.Int64, pl.Float64, pl.Float32])
def test_labels_as_whole_or_decimal_numbers_are_the_same(tmp_path, kind):
    labels = pl.Series(np.arange(ROWS) % 2).cast(kind)
    frame = book(D1).with_columns(label=labels)
    right = [i % 2 for i in range(ROWS)]
    root = hive(tmp_path / "hive", {D1: frame})
    assert loaded(root, D1).ticks["label"].to_pylist() == right
    path = tmp_path / "desk" / f"ABC_{D1}.csv"
    path.parent.mkdir()
    path.write_text(desk_text(frame, f"{DESK},label"))
    assert loaded(path.parent, D1).ticks["label"].to_pylist() == right


@pytest.mark.parametrize("reader", ["hive", "desk"])
def test_a_label_of_one_half_is_an_error_that_names_the_column(tmp_path, reader):
    frame = book(D1).with_columns(label=pl.Series(np.arange(ROWS) % 2 / 2))
    if reader == "hive":
        hive(tmp_path, {D1: frame})
    else:
        (tmp_path / f"ABC_{D1}.csv").write_text(desk_text(frame, f"{DESK},label"))
    text = refused(tmp_path, D1, SchemaError)
    assert "label" in text
    assert str(D1) in text


@pytest.mark.parametrize("reader", ["hive", "desk"])
def test_a_label_of_two_costs_its_row(tmp_path, reader):
    labels = np.zeros(ROWS)
    labels[7] = 2
    frame = book(D1).with_columns(label=pl.Series(labels))
    if reader == "hive":
        hive(tmp_path, {D1: frame})
    else:
        (tmp_path / f"ABC_{D1}.csv").write_text(desk_text(frame, f"{DESK},label"))
    assert sift(tmp_path, day_of(tmp_path, D1)) == (ROWS, ROWS - 1, 1, 0, {"bad_label": 1})


def test_the_desks_own_columns_in_parquet_are_used_where_there_are_no_trades(tmp_path):
    own = {
        "vwap": pl.lit(100.5),
        "last_trade": pl.col("bid_price"),
        "feature_ema_1min": pl.lit(0.25),
    }
    quotes, trades = market()
    quotes = {date: frame.with_columns(**own) for date, frame in quotes.items()}
    alone = loaded(hive(tmp_path / "alone", quotes), D1)
    assert alone.ticks["vwap"].to_pylist() == [100.5] * ROWS
    assert alone.ticks["last_trade"].equals(alone.ticks["bid_price"])
    assert alone.ticks["feature_ema_1min"].to_pylist() == [0.25] * ROWS
    assert alone.notes.warnings == ()
    both = loaded(hive(tmp_path / "both", quotes, trades), D1)
    assert both.ticks["feature_ema_1min"].to_pylist() == [0.25] * ROWS
    assert both.ticks["vwap"][-1].as_py() != 100.5
    assert both.notes.warnings == ("columns not used, trades give them: last_trade, vwap",)


# ---------------------------------------------------------------- time stamps


@pytest.mark.parametrize(("unit", "divisor"), [("ms", 10**6), ("us", 10**3), ("ns", 1)])
def test_integer_stamps_are_read_where_their_unit_is_stated(tmp_path, unit, divisor):
    quotes, trades = market()
    usual = hive(tmp_path / "usual", quotes, trades)
    root = tmp_path / "integers"
    for kind, days in (("quotes", quotes), ("trades", trades)):
        for date, frame in days.items():
            whole = frame.with_columns(pl.col("timestamp") // divisor)
            put(root, kind, "ABC", f"date={date}.parquet", whole.to_arrow())
    text = refused(root, D1, SchemaError)
    assert "column 'timestamp' has integers (int64): their unit is not stated" in text
    assert f"date={D1}.parquet" in text
    (root / "tickline.yaml").write_text(f"timestamp_unit: {unit}\n")
    for date in DATES:
        assert loaded(root, date).ticks.equals(loaded(usual, date).ticks)


def test_integer_stamps_of_the_wrong_unit_fail_the_day(tmp_path):
    quotes, _ = market()
    whole = quotes[D1].with_columns(pl.col("timestamp") // 10**6)
    put(tmp_path, "quotes", "ABC", f"date={D1}.parquet", whole.to_arrow())
    for unit in ("s", "us", "ns"):
        (tmp_path / "tickline.yaml").write_text(f"timestamp_unit: {unit}\n")
        if unit == "s":
            text = refused(tmp_path, D1, SchemaError)
            assert "does not fit the stated unit s" in text
        else:
            assert sift(tmp_path, day_of(tmp_path, D1))[1] == 0


@pytest.mark.parametrize("text", ["profile: stocks", "unit: ms", "a: [", "\0", "- 1", "\xff"])
def test_a_wrong_statement_is_an_error_that_names_it(tmp_path, text):
    root = hive(tmp_path, market()[0])
    (root / "tickline.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(TicklineError, match=r"tickline\.yaml"):
        _ = open_market(str(root)).statement


@pytest.mark.parametrize("kind", ["quotes", "trades"])
def test_null_stamps_are_an_error_that_names_the_file(tmp_path, kind):
    both = dict(zip(("quotes", "trades"), market(), strict=True))
    root = hive(tmp_path, both["quotes"], both["trades"])
    stamp = pl.when(pl.int_range(pl.len()) != 3).then("timestamp").alias("timestamp")
    frame = both[kind][D2].with_columns(stamp)
    path = put(root, kind, "ABC", f"date={D2}.parquet", arrow(frame))
    text = refused(root, D2, DataError)
    assert "column 'timestamp' has 1 nulls" in text
    assert str(path) in text


def test_stamps_without_a_time_zone_are_an_error_that_names_file_and_column(tmp_path):
    quotes, _ = market()
    naive = quotes[D1].with_columns(pl.col("timestamp").cast(pl.Datetime("ns"))).to_arrow()
    path = put(tmp_path, "quotes", "ABC", f"date={D1}.parquet", naive)
    text = refused(tmp_path, D1, SchemaError)
    assert "column 'timestamp' has the wrong type" in text
    assert str(path) in text


# ---------------------------------------------------------------- symbols


SYMBOLS = [
    ("A/B", "A%2FB"), ("ABC[bold]", "ABC[bold]"), ("[/red]", "%5B%2Fred%5D"), ("50%", "50%25"),
    ("A B", "A B"), ("A B", "A%20B"), ("币安人生", "币安人生"), ("ДОМ", "%D0%94%D0%9E%D0%9C"),
    ("Ünï", "Ünï"), ("^GSPC", "^GSPC"), ("M&M", "M&M"), ("A'B", "A'B"), ("BRK.B", "BRK.B"),
    ("A:B", "A:B"), ("A+B", "A+B"), ("A#1", "A#1"),
]  # fmt: skip


@each_reader
@pytest.mark.parametrize(("symbol", "written"), SYMBOLS)
def test_a_symbol_is_itself_in_catalogue_rows_and_trades(tmp_path, reader, symbol, written):
    quotes = {D1: book(D1, 40)}
    root = WRITERS[reader](tmp_path, quotes, {D1: deals(quotes[D1], 10)}, symbol=written)
    (day,) = days_of(root)
    assert day.symbol == (f"{symbol}.binance" if reader == "binance" else symbol)
    found = loaded(root, D1)
    assert found.ticks["symbol"].to_pylist() == [day.symbol] * 40
    assert sift(root, day)[:3] == (40, 40, 0)
    assert sum(found.ticks["trade_count"].to_pylist()) == (0 if reader == "desk" else 10)
    assert open_market(str(root)).digest(day)


# ---------------------------------------------------------------- the desk's files


@pytest.mark.parametrize(
    "name",
    [
        "ABC_{}.csv", "ABC-{}.csv", "ABC.{}.csv", "ABC {}.csv", "{}_ABC.csv", "ABC/{}.csv",
        "symbol=ABC/{}.csv", "ABC_{}_part1.csv", "ABC_{}.csv/part-0.csv", "ABC_{}/ABC_{}.csv",
    ],
)  # fmt: skip
def test_the_desks_days_in_other_names_are_one_instrument(tmp_path, name):
    for date in DATES:
        path = tmp_path / name.replace("{}", str(date))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(desk_text(book(date)))
    assert days_of(tmp_path) == [InstrumentDay(date, "ABC", ROWS) for date in DATES]


def test_a_folder_named_like_a_file_is_read_as_its_parts(tmp_path):
    frame = pl.concat([book(date) for date in DATES])
    for k in range(8):
        path = tmp_path / "ABC.csv" / f"part-{k}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(desk_text(frame[k * 100 : (k + 1) * 100]))
    (tmp_path / "ABC.csv" / "_SUCCESS").touch()
    assert days_of(tmp_path) == [InstrumentDay(date, "ABC", ROWS) for date in DATES]
    assert sift(tmp_path, day_of(tmp_path, D2)) == (ROWS, ROWS, 0, 0, {})


def packed(suffix: str, data: bytes) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_of_the_desk_are_read_whole_or_refused_by_name(tmp_path, suffix):
    data = packed(suffix, desk_text(book(D1)).encode())
    path = tmp_path / f"ABC_{D1}.csv{suffix}"
    path.write_bytes(data)
    assert days_of(tmp_path) == [InstrumentDay(D1, "ABC", ROWS)]
    for damaged in (data[:-30], data[: len(data) // 2], data[:3], data[:60] + b"xxxx" + data[64:]):
        path.write_bytes(damaged)
        # a zstd frame without a checksum hides some damage, which the text then shows
        with pytest.raises(TicklineError) as caught:
            open_market(str(tmp_path)).catalog()
        assert str(path) in str(caught.value)
        if len(damaged) < len(data):
            assert "cannot decompress the file" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_desk_file_in_another_encoding_is_refused_by_name(tmp_path, encoding):
    path = tmp_path / f"ABC_{D1}.csv"
    path.write_bytes(desk_text(book(D1)).encode(encoding))
    with pytest.raises(TicklineError) as caught:
        open_market(str(tmp_path)).catalog()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "ascii"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_desk_file_with_a_mark_or_other_line_ends_is_read(tmp_path, encoding, end):
    path = tmp_path / f"ABC_{D1}.csv"
    path.write_bytes(desk_text(book(D1)).replace("\n", end).encode(encoding))
    assert sift(tmp_path, day_of(tmp_path, D1)) == (ROWS, ROWS, 0, 0, {})


@pytest.mark.parametrize("data", [b"PK\x03\x04\r\x00,\r\n" * 9, b"a" * 200_000, b"\r", b"\0" * 50])
def test_a_file_that_is_no_csv_but_is_named_so_is_refused_by_name(tmp_path, data):
    path = tmp_path / f"ABC_{D1}.csv"
    path.write_bytes(data)
    with pytest.raises(SchemaError, match="column 'timestamp' is missing") as caught:
        open_market(str(tmp_path)).catalog()
    assert f"{path}, line 1" in str(caught.value)


@pytest.mark.parametrize("row", [1, 200])
def test_a_desk_file_that_is_not_utf_8_is_refused_by_file_line_and_text(tmp_path, row):
    rows = desk_text(book(D1).with_columns(venue=pl.lit("X")), f"{DESK},venue").splitlines()
    rows[row] = rows[row].replace("X", "Zürich")
    path = tmp_path / f"ABC_{D1}.csv"
    path.write_bytes("\n".join(rows).encode("latin-1"))
    with pytest.raises(SchemaError, match=r"not UTF-8 near .*rich") as caught:
        open_market(str(tmp_path)).catalog()
    assert f"{path}, line {row + 1}" in str(caught.value)


@pytest.mark.parametrize("stamp", ["3025-03-03", "1500-03-03", "2025-02-29"])
def test_a_date_that_no_stamp_can_have_is_refused_by_file_line_and_text(tmp_path, stamp):
    rows = desk_text(book(D1)).splitlines()
    rows[7] = rows[7].replace(str(D1), stamp)
    path = tmp_path / f"ABC_{D1}.csv"
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=f"'{stamp}T.*' is not a time stamp") as caught:
        open_market(str(tmp_path)).catalog()
    assert f"{path}, line 8" in str(caught.value)


# ---------------------------------------------------------------- archives


def test_monthly_trades_of_either_kind_are_their_days(tmp_path):
    quotes, trades = market()
    for kind, text in (("trades", trades_text), ("aggTrades", aggregate_text)):
        usual = WITH_TRADES[kind](tmp_path / f"daily {kind}", quotes, trades)
        root = binance(tmp_path / f"monthly {kind}", quotes)
        zipped(root / f"ABC-{kind}-2025-03.zip", text(pl.concat(list(trades.values()))))
        for date in DATES:
            assert loaded(root, date).ticks.equals(loaded(usual, date).ticks)
        assert open_market(str(root)).passed_over() == ()


@each_date
def test_a_monthly_file_that_lacks_a_day_of_trades_is_an_error_that_names_it(tmp_path, date):
    quotes, trades = market()
    other = D1 if date == D2 else D2
    root = binance(tmp_path, quotes)
    zipped(root / "ABC-trades-2025-03.zip", trades_text(trades[other]))
    text = refused(root, date, DataError)
    assert f"on {date} have no rows" in text
    assert "ABC-trades-2025-03.zip" in text


def test_an_unpacked_file_beside_its_archive_is_named_and_not_read_twice(tmp_path):
    quotes, trades = market()
    root = binance(tmp_path, quotes, trades)
    (root / f"ABC-bookTicker-{D1}.csv").write_text(book_text(quotes[D1]))
    (root / f"ABC-trades-{D2}.csv").write_text(trades_text(trades[D2]))
    names = [item.path for item in open_market(str(root)).passed_over()]
    assert sorted(names) == [f"ABC-bookTicker-{D1}.csv", f"ABC-trades-{D2}.csv"]
    for date in DATES:
        assert sift(root, day_of(root, date))[0] == ROWS
        assert traded(root, date)[0] == DEALS


def test_unpacked_files_alone_are_read(tmp_path):
    quotes, trades = market()
    usual = binance(tmp_path / "zip", quotes, trades)
    root = tmp_path / "csv"
    root.mkdir()
    for date in DATES:
        (root / f"ABC-bookTicker-{date}.csv").write_text(book_text(quotes[date]))
        packed_trades = gzip.compress(trades_text(trades[date]).encode())
        (root / f"ABC-trades-{date}.csv.gz").write_bytes(packed_trades)
    for date in DATES:
        assert loaded(root, date).ticks.equals(loaded(usual, date).ticks)


@pytest.mark.parametrize("kind", ["bookTicker", "trades"])
def test_the_same_archive_in_two_folders_is_an_error_that_names_both(tmp_path, kind):
    quotes, trades = market()
    root = binance(tmp_path, quotes, trades)
    copy = root / "old" / f"ABC-{kind}-{D1}.zip"
    copy.parent.mkdir()
    shutil.copy(root / copy.name, copy)
    with pytest.raises(MarketError, match=f"two archives hold the {kind} of ABC on {D1}") as caught:
        open_market(str(root)).catalog()
    assert f"old/{copy.name}" in str(caught.value)


def test_a_daily_and_a_monthly_archive_of_one_day_are_an_error_that_names_both(tmp_path):
    quotes, trades = market()
    root = binance(tmp_path, quotes, trades)
    zipped(root / "ABC-trades-2025-03.zip", trades_text(pl.concat(list(trades.values()))))
    with pytest.raises(MarketError, match="two archives hold the trades of ABC") as caught:
        open_market(str(root)).catalog()
    assert "ABC-trades-2025-03.zip" in str(caught.value)
    assert f"ABC-trades-{D1}.zip" in str(caught.value)


def test_checksums_are_not_named_and_other_files_are(tmp_path):
    root = binance(tmp_path, market()[0])
    (root / f"ABC-bookTicker-{D1}.zip.CHECKSUM").write_text("0")
    (root / "ABC-klines-2025-03-03.zip").write_bytes(b"")
    assert [item.path for item in open_market(str(root)).passed_over()] == [
        "ABC-klines-2025-03-03.zip"
    ]


def patched(path: Path, at: int, central: int, value: bytes) -> None:
    """Overwrite two bytes of the local and of the central header of a zip's first file."""
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[at : at + 2] = data[directory + central : directory + central + 2] = value
    path.write_bytes(data)


@each_date
@pytest.mark.parametrize("kind", ["bookTicker", "trades", "aggTrades"])
@pytest.mark.parametrize(
    "fault", ["deflate", "password", "method", "cut", "empty", "text", "directory"]
)
def test_a_damaged_or_locked_archive_is_refused_by_name(tmp_path, kind, fault, date):
    quotes, trades = market()
    root = binance(tmp_path, quotes, trades, kind="aggTrades" if kind == "aggTrades" else "trades")
    path = root / f"ABC-{kind}-{date}.zip"
    data = bytearray(path.read_bytes())
    if fault == "deflate":
        path.write_bytes(bytes(data[:90]) + bytes(b ^ 0x5A for b in data[90:98]) + bytes(data[98:]))
    elif fault == "password":
        patched(path, 6, 8, b"\x01\x00")
    elif fault == "directory":  # it says to begin outside the file
        data[-10:-6] = (2**24).to_bytes(4, "little")
        path.write_bytes(data)
    elif fault == "method":
        patched(path, 8, 10, b"\x63\x00")
    else:
        path.write_bytes({"cut": bytes(data[:-30]), "empty": b"", "text": b"<html>"}[fault])
    text = refused(root, date, MarketError)
    assert "not readable as zip, truncated or corrupt" in text
    assert str(path) in text
    other = D1 if date == D2 else D2
    assert loaded(root, other).ticks.num_rows == ROWS


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_of_other_compression_that_can_be_read_are_read(tmp_path, method):
    quotes, _ = market()
    for date in DATES:
        path = tmp_path / f"ABC-bookTicker-{date}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr(f"{path.stem}.csv", book_text(quotes[date]))
    assert sift(tmp_path, day_of(tmp_path, D2)) == (ROWS, ROWS, 0, 0, {})


@pytest.mark.parametrize("kind", ["bookTicker", "trades"])
def test_a_cell_that_is_no_number_is_refused_by_file_line_and_text(tmp_path, kind):
    quotes, trades = market()
    root = binance(tmp_path, quotes, trades)
    text = book_text(quotes[D1]) if kind == "bookTicker" else trades_text(trades[D1])
    rows = text.splitlines()
    cells = rows[41].split(",")
    rows[41] = ",".join([cells[0], "1.2.3", *cells[2:]])
    path = zipped(root / f"ABC-{kind}-{D1}.zip", "\n".join(rows) + "\n")
    message = refused(root, D1, SchemaError)
    assert "'1.2.3'" in message
    assert f"{path}, line 42" in message


@pytest.mark.parametrize("flags", [("True", "False"), ("1", "0"), ("TRUE", "FALSE")])
def test_flags_in_other_spellings_are_read(tmp_path, flags):
    quotes, trades = market()
    usual = binance(tmp_path / "usual", quotes, trades)
    root = binance(tmp_path / "other", quotes, trades)
    text = trades_text(trades[D1]).replace("true", flags[0]).replace("false", flags[1])
    zipped(root / f"ABC-trades-{D1}.zip", text)
    assert loaded(root, D1).ticks.equals(loaded(usual, D1).ticks)


def test_microseconds_of_spot_archives_are_read(tmp_path):
    quotes, trades = market()
    usual = binance(tmp_path / "usual", quotes, trades)
    root = binance(tmp_path / "spot", quotes, trades)
    rows = [line.split(",") for line in trades_text(trades[D1]).splitlines()]
    text = [",".join([*r[:4], r[4] + "000" * (r[4] != "time"), *r[5:], "true"]) for r in rows]
    zipped(root / f"ABC-trades-{D1}.zip", "\n".join(text) + "\n")
    assert loaded(root, D1).ticks.equals(loaded(usual, D1).ticks)


# ---------------------------------------------------------------- damaged Parquet


@each_date
@pytest.mark.parametrize("kind", ["quotes", "trades"])
@pytest.mark.parametrize("fault", ["cut", "empty", "text", "middle"])
def test_a_damaged_parquet_file_is_refused_by_name(tmp_path, kind, fault, date):
    quotes, trades = market()
    root = hive(tmp_path, quotes, trades)
    path = root / kind / "symbol=ABC" / f"date={date}.parquet"
    data = path.read_bytes()
    damaged = {
        "cut": data[:-40],
        "empty": b"",
        "text": b"<html>",
        "middle": data[:200] + bytes(b ^ 0x5A for b in data[200:2000]) + data[2000:],
    }
    path.write_bytes(damaged[fault])
    text = refused(root, date)
    assert str(path) in text or f"{path.parent.name}/{path.name}" in text
    other = D1 if date == D2 else D2
    assert loaded(root, other).ticks.num_rows == ROWS


def test_parts_with_different_columns_or_types_are_read_or_refused_by_name(tmp_path):
    frame = book(D1)
    for k, part in enumerate((frame[:200], frame[200:].with_columns(bid_size=pl.lit("x")))):
        put(tmp_path, "quotes", "ABC", f"date={D1}/part-{k}.parquet", arrow(part))
    assert f"date={D1}/part-0.parquet" in refused(tmp_path, D1, SchemaError)
    put(tmp_path, "quotes", "ABC", f"date={D1}/part-1.parquet", arrow(frame[200:].drop("bid_size")))
    ticks = loaded(tmp_path, D1).ticks
    assert ticks.num_rows == ROWS
    assert ticks["bid_size"].null_count == 200


def test_a_quotes_file_without_rows_is_refused_by_name(tmp_path):
    root = hive(tmp_path, {D1: book(D1), D2: book(D2)[:0]})
    with pytest.raises(DataError, match="0 rows") as caught:
        judge(root, day_of(root, D2))
    assert f"date={D2}.parquet" in str(caught.value)
    assert pq.ParquetFile(root / "quotes/symbol=ABC" / f"date={D2}.parquet").metadata.num_rows == 0
