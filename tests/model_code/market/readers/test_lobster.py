"""LOBSTER's pairs of files, against the same day in the hive layout."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from model_code.errors import DataError, MarketError, SchemaError
from model_code.market.readers.files import PassedOver
from model_code.market.readers.lobster import CROSS, HALT, HALTED, LobsterStore
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from tests.support.formats import (
    lobster,
    lobster_lines,
    sample,
    write_hive_sample,
    write_lobster,
)
from tests.support.market import DATES

DAYS = [sample(date=date) for date in DATES]
ABC = [InstrumentDay(date, "ABC.XNAS", 300) for date in DATES]
JUNE, DECEMBER = dt.date(2012, 6, 21), dt.date(2012, 12, 3)
BOOK = "1000100,6,1000000,5"


def message(second, kind=1, size=5, price=1_000_000, direction=1):
    return f"{second:.9f},{kind},1,{size},{price},{direction}"


def store_of(folder, messages, book=None, date=JUNE):
    write_lobster(folder, date, messages, [BOOK] * len(messages) if book is None else book)
    return open_market(str(folder))


def load(store):
    return store.load(store.catalog()[0])


def test_ticks_equal_those_of_the_same_day_in_hive(tmp_path):
    store = open_market(lobster(tmp_path / "lobster", DAYS))
    hive = open_market(write_hive_sample(tmp_path / "hive", DAYS, "ABC.XNAS"))
    assert isinstance(store, LobsterStore)
    assert list(store.catalog()) == ABC
    assert store.passed_over() == ()
    for day in ABC:
        assert store.read(day).equals(hive.read(day))
        assert store.load(day).notes.trades == hive.load(day).notes.trades


@pytest.mark.parametrize(("date", "hour"), [(JUNE, 13), (DECEMBER, 14)])
def test_seconds_after_midnight_are_new_yorks_to_the_nanosecond(tmp_path, date, hour):
    store = store_of(tmp_path, ["34200.004241176,1,1,5,1000000,1"], date=date)
    (day,) = store.catalog()
    (time,) = store.read(day)["timestamp"].cast(pa.int64()).to_pylist()
    start = dt.datetime(date.year, date.month, date.day, hour, 30, tzinfo=dt.UTC)
    assert time == int(start.timestamp()) * 10**9 + 4_241_176
    assert day.date == date


def test_an_evening_after_midnight_utc_belongs_to_the_next_date(tmp_path):
    store = store_of(tmp_path, [message(34_300), message(72_000.5)])  # 20:00 in New York
    assert [day.date for day in store.catalog()] == [JUNE, JUNE + dt.timedelta(days=1)]


def test_visible_and_hidden_executions_are_trades_of_the_resting_orders_other_side(tmp_path):
    messages = [
        message(34_300),
        message(34_301, 4, 3, direction=1),  # a buy order was hit: sold
        message(34_302, 5, 2, 1_000_050, direction=-1),  # hidden sell order: bought
        message(34_303, 2),
    ]
    ticks = load(store_of(tmp_path, messages)).ticks
    assert ticks.num_rows == 3  # a hidden execution does not change the book
    assert ticks["sell_volume"].to_pylist() == [0.0, 3.0, 0.0]
    assert ticks["buy_volume"].to_pylist() == [0.0, 0.0, 2.0]
    assert ticks["last_trade"].to_pylist() == [None, 100.0, 100.005]


def test_crosses_halts_and_the_quotes_of_a_halt_are_left_out_and_counted(tmp_path):
    messages = [
        message(34_300),
        message(34_301, 6, 1000, direction=-1),
        message(34_302, 7, 0, -1, -1),
        message(34_303),
        message(34_304, 7, 0, 0, -1),  # quoting resumes, trading does not
        message(34_305),
        message(34_306, 7, 0, 1, -1),
        message(34_307),
    ]
    store = store_of(tmp_path, messages)
    assert store.catalog()[0].rows == 2
    found = load(store)
    assert found.ticks.num_rows == 2
    assert set(found.notes.warnings[:3]) == {
        f"trades left out, {CROSS}: 1",
        f"quotes left out, {HALT}: 3",
        f"quotes left out, {HALTED}: 2",
    }


def test_an_empty_side_is_missing(tmp_path):
    book = ["9999999999,0,1000000,5", "1000100,6,-9999999999,0", BOOK]
    ticks = load(store_of(tmp_path, [message(34_300 + i) for i in range(3)], book)).ticks
    assert np.isnan(ticks["ask_price"].to_numpy()).tolist() == [True, False, False]
    assert np.isnan(ticks["bid_price"].to_numpy()).tolist() == [False, True, False]


def test_more_levels_are_read_at_their_best(tmp_path):
    book = [f"{BOOK},1000200,7,999900,8"] * 2
    ticks = load(store_of(tmp_path, [message(34_300), message(34_301)], book)).ticks
    assert (ticks["bid_price"][0].as_py(), ticks["ask_price"][0].as_py()) == (100.0, 100.01)


def test_a_day_that_ends_at_noon_is_remarked(tmp_path):
    notes = load(store_of(tmp_path, [message(34_300), message(43_200)])).notes
    assert notes.warnings == (
        "ABC_2012-06-21_34200000_57600000_message_1.csv ends at 16:00:00 UTC, its name says "
        "20:00:00",
    )
    (tmp_path / "whole").mkdir()
    whole = load(store_of(tmp_path / "whole", [message(34_300), message(57_599)])).notes
    assert whole.warnings == ()


@pytest.mark.parametrize(("more", "how"), [(1, "fewer"), (-1, "more")])
def test_files_of_different_lengths_are_truncated(tmp_path, more, how):
    messages, book = lobster_lines(DAYS[0])
    book = [*book, BOOK] if more > 0 else book[:more]
    store = store_of(tmp_path, messages, book)
    with pytest.raises(MarketError, match=f"truncated: the message file has {how} lines"):
        store.catalog()


def test_a_file_that_ends_within_a_line_is_truncated(tmp_path):
    store_of(tmp_path, [message(34_300), message(34_301)])
    path = next(tmp_path.glob("*message*"))
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(MarketError, match="truncated: the last line has no line end"):
        open_market(str(tmp_path)).catalog()


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        ("34300.5,8,1,5,1000000,1", DataError, "8 is no event type"),
        ("34300500,1,1,5,1000000,1", DataError, "is not a time in seconds after midnight"),
        ("34300.5,1,1,5,100.25,1", SchemaError, "'price': expected Int64, found '100.25'"),
        ("34300.5,1,1,5,1000000", SchemaError, "expected 6 cells"),
        (",1,1,5,1000000,1", DataError, "a cell is empty"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, kind, text):
    store = store_of(tmp_path, [message(34_300), line])
    with pytest.raises(kind, match=text) as caught:
        store.catalog()
    assert caught.value.where.endswith("message_1.csv, line 2")


def test_a_file_without_its_other_half_is_named_or_refused(tmp_path):
    store_of(tmp_path, [message(34_300)])
    write_lobster(tmp_path, DECEMBER, [message(34_300)], [BOOK])
    (tmp_path / f"ABC_{DECEMBER}_34200000_57600000_message_1.csv").unlink()
    (tmp_path / "readme.txt").write_text("x")
    assert open_market(str(tmp_path)).passed_over() == (
        PassedOver(
            f"ABC_{DECEMBER}_34200000_57600000_orderbook_1.csv", "its message file is missing"
        ),
        PassedOver("readme.txt", f"not named {LobsterStore.LAYOUT}"),
    )
    (tmp_path / f"ABC_{JUNE}_34200000_57600000_orderbook_1.csv").unlink()
    with pytest.raises(MarketError, match="the order book file is missing"):
        open_market(str(tmp_path)).catalog()


def test_empty_files_are_named(tmp_path):
    store = store_of(tmp_path, [])
    with pytest.raises(MarketError, match=r"no instrument-day found: .*no usable rows"):
        store.catalog()


def test_one_day_at_two_depths_is_refused(tmp_path):
    store_of(tmp_path, [message(34_300), message(34_301)])
    for path in list(tmp_path.iterdir()):
        path.with_name(path.name.replace("_1.csv", "_5.csv")).write_bytes(path.read_bytes())
    store = open_market(str(tmp_path))
    with pytest.raises(MarketError, match="two files cover the same time"):
        store.load(store.catalog()[0])


def test_the_profile_is_that_of_us_equities_unless_stated(tmp_path):
    assert store_of(tmp_path, [message(34_300)]).statement.profile == "us-equities"
    (tmp_path / "tickline.yaml").write_text("profile: crypto\n")
    assert open_market(str(tmp_path)).statement.profile == "crypto"


def test_the_digest_covers_both_files(tmp_path):
    store = store_of(tmp_path, [message(34_300)])
    (day,) = store.catalog()
    before = store.digest(day)
    book = next(tmp_path.glob("*orderbook*"))
    book.write_text("1000200,6,1000000,5\n")
    assert open_market(str(tmp_path)).digest(day) != before
