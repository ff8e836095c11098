"""Databento's DBN, against the same day in the hive layout."""

import datetime as dt

import pyarrow as pa
import pytest

from model_code.errors import DataError, MarketError
from model_code.market.readers.databento import BAD_BOOK, BAD_TIME, DatabentoStore
from model_code.market.readers.files import PassedOver
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from tests.support.formats import (
    PRICE,
    databento,
    databento_records,
    dbn,
    mbp1,
    metadata,
    sample,
    write_dbn,
    write_hive_sample,
)
from tests.support.market import DATES, epoch_ns

DAYS = [sample(date=date) for date in DATES]
ABC = [InstrumentDay(date, "ABC.XNAS", 300) for date in DATES]
BOOK = (10_000, 10_001, 5, 6)
T0 = epoch_ns(DATES[0], 14.0)


def store_of(folder, records, schema=dbn.Schema.MBP_1, symbols=None, name="x.dbn"):
    write_dbn(folder / name, metadata(schema, symbols or {"ABC": 7}), records)
    return open_market(str(folder))


def load(store):
    return store.load(store.catalog()[0])


def test_ticks_equal_those_of_the_same_day_in_hive(tmp_path):
    store = open_market(databento(tmp_path / "dbn", DAYS))
    hive = open_market(write_hive_sample(tmp_path / "hive", DAYS, "ABC.XNAS"))
    assert isinstance(store, DatabentoStore)
    assert list(store.catalog()) == ABC
    assert store.passed_over() == ()
    for day in ABC:
        assert store.read(day).equals(hive.read(day))
        assert store.load(day).notes.trades == hive.load(day).notes.trades


def test_a_file_of_two_days_and_two_instruments_is_split(tmp_path):
    other = sample(200, "XYZ", DATES[0])
    records = databento_records(DAYS[0]) + databento_records(DAYS[1])
    records += databento_records(other, number=8)
    store = store_of(tmp_path, records, symbols={"ABC": 7, "XYZ": 8}, name="all.dbn.zst")
    assert [(day.date, day.symbol, day.rows) for day in store.catalog()] == [
        (DATES[0], "ABC.XNAS", 300), (DATES[0], "XYZ.XNAS", 200), (DATES[1], "ABC.XNAS", 300),
    ]  # fmt: skip
    expected = open_market(write_hive_sample(tmp_path / "hive", DAYS, "ABC.XNAS"))
    for day in ABC:
        assert store.read(day).equals(expected.read(day))


def test_the_time_is_when_the_capture_server_received_the_record(tmp_path):
    ticks = load(store_of(tmp_path, [mbp1(7, T0, BOOK)])).ticks
    assert ticks["timestamp"].cast(pa.int64()).to_pylist() == [T0]  # ts_event is 5 us earlier


def test_the_book_of_a_tbbo_record_is_the_one_before_its_trade(tmp_path):
    store = open_market(databento(tmp_path, DAYS[:1], schema="tbbo"))
    ticks = load(store).ticks
    assert ticks.num_rows == len(DAYS[0].row)
    assert ticks["trade_count"].to_pylist() == [0] + [1] * (len(DAYS[0].row) - 1)
    assert ticks["last_trade"].to_pylist()[1:] == (DAYS[0].price[:-1] / 100).tolist()
    assert ticks["bid_price"].to_pylist() == (DAYS[0].bid[DAYS[0].row - 1] / 100).tolist()


def test_sampled_quotes_are_joined_with_a_file_of_trades(tmp_path):
    quotes = [
        bytes(
            dbn.BBOMsg(
                int(dbn.RType.BBO_1S), 2, 7, T0, 5, 1, dbn.Side.NONE, T0 + i * 10**9,
                levels=dbn.BidAskPair(
                    bid_px=100 * PRICE, ask_px=101 * PRICE, bid_sz=1, ask_sz=2, bid_ct=1, ask_ct=1
                ),
            )
        )
        for i in range(30)
    ]  # fmt: skip
    write_dbn(tmp_path / "q.dbn", metadata(dbn.Schema.BBO_1S, {"ABC": 7}), quotes)
    databento(tmp_path, DAYS[:1], schema="trades")
    found = load(open_market(str(tmp_path)))
    assert found.ticks.num_rows == 30
    assert found.notes.trades is not None
    assert found.notes.trades.rows == len(DAYS[0].row)


def test_the_finest_file_of_a_day_is_used(tmp_path):
    for schema in ("mbp-1", "tbbo", "trades"):
        databento(tmp_path, DAYS[:1], schema=schema)
    store = open_market(str(tmp_path))
    assert list(store.catalog()) == ABC[:1]
    names = {item.path.split(".")[1]: item.reason for item in store.passed_over()}
    assert set(names) == {"tbbo", "trades"}
    assert all(reason.startswith("a finer file holds the") for reason in names.values())
    assert store.load(ABC[0]).notes.files == ("xnas-itch-20240808.mbp-1.dbn.zst",)


def test_flagged_records_are_left_out_and_counted(tmp_path):
    records = [
        mbp1(7, T0, BOOK),
        mbp1(7, T0 + 1, BOOK, flags=dbn.F_LAST | dbn.F_BAD_TS_RECV),
        mbp1(7, T0 + 2, BOOK, flags=dbn.F_MAYBE_BAD_BOOK),
        mbp1(7, T0 + 3, BOOK, flags=dbn.F_SNAPSHOT),
    ]
    store = store_of(tmp_path, records)
    day = store.catalog()[0]
    assert day.rows == 2
    found = store.load(day)
    assert found.ticks.num_rows == 2
    assert found.notes.warnings == (
        f"quotes left out, {BAD_TIME}: 1", f"quotes left out, {BAD_BOOK}: 1",
    )  # fmt: skip


def test_an_undefined_price_is_missing_and_not_a_number(tmp_path):
    empty = dbn.MBP1Msg(
        2, 7, T0, dbn.UNDEF_PRICE, 0, dbn.Action.CLEAR, dbn.Side.NONE, 0, T0,
        levels=dbn.BidAskPair(),
    )  # fmt: skip
    trade = mbp1(7, T0 + 1, BOOK, size=3, action=dbn.Action.TRADE, side=dbn.Side.BID)
    found = load(store_of(tmp_path, [bytes(empty), trade, mbp1(7, T0 + 2, BOOK)]))
    assert found.ticks["bid_price"][0].as_py() != found.ticks["bid_price"][0].as_py()  # NaN
    assert found.ticks["bid_price"][1].as_py() == 100.0
    assert found.notes.trades is not None
    assert (found.notes.trades.rows, found.notes.trades.bad) == (1, 1)


def test_trades_without_a_side_are_classified_and_the_others_keep_theirs(tmp_path):
    def trade(i, price, side):
        return mbp1(
            7, T0 + i, BOOK, price=price * PRICE, size=1, action=dbn.Action.TRADE, side=side
        )

    records = [
        mbp1(7, T0, BOOK),
        trade(1, 10_001, dbn.Side.ASK),  # at the ask, and still said to be sold
        trade(2, 10_001, dbn.Side.NONE),
        trade(3, 10_000, dbn.Side.NONE),
        mbp1(7, T0 + 4, BOOK),
    ]
    found = load(store_of(tmp_path, records))
    assert found.ticks["sell_volume"].to_pylist() == [0.0, 2.0]
    assert found.ticks["buy_volume"].to_pylist() == [0.0, 1.0]
    assert found.notes.aggressor == "flag"
    assert found.notes.warnings == (
        "2 of 3 trades have no side: classified by Lee and Ready",
    )  # fmt: skip
    unknown = [records[0], records[2], records[4]]
    (tmp_path / "none").mkdir()
    assert load(store_of(tmp_path / "none", unknown)).notes.aggressor == "Lee-Ready"


def test_an_instrument_without_a_symbol_is_refused(tmp_path):
    store = store_of(tmp_path, [mbp1(7, T0, BOOK), mbp1(8, T0, BOOK)])
    with pytest.raises(DataError, match="instrument id 8 has no symbol on 2024-08-08"):
        store.catalog()


def test_two_venues_of_one_instrument_are_refused(tmp_path):
    store = store_of(tmp_path, [mbp1(7, T0, BOOK), mbp1(7, T0, BOOK, publisher=3)])
    with pytest.raises(DataError, match="publishers 2 and 3: each venue has its own book"):
        store.catalog()


@pytest.mark.parametrize(
    ("time", "message"),
    [
        (T0 // 1000, "one in us"),
        (dbn.UNDEF_TIMESTAMP, "no ts_recv"),
    ],
)
def test_a_stamp_in_another_unit_or_none_is_refused(tmp_path, time, message):
    bad = dbn.MBP1Msg(
        2, 7, T0, 1, 1, dbn.Action.ADD, dbn.Side.BID, 0, time, levels=dbn.BidAskPair()
    )
    store = store_of(tmp_path, [mbp1(7, T0, BOOK), bytes(bad)])
    with pytest.raises(DataError, match=message):
        store.catalog()


def test_another_schema_is_named(tmp_path):
    path = write_dbn(tmp_path / "x.ohlcv-1d.dbn", metadata(dbn.Schema.OHLCV_1D, {"ABC": 7}), [])
    with pytest.raises(MarketError, match=r"schema ohlcv-1d; read are mbp-1.*x\.ohlcv-1d\.dbn"):
        open_market(str(tmp_path)).catalog()
    (tmp_path / "manifest.json").write_text("{}")
    databento(tmp_path, DAYS)
    assert open_market(str(tmp_path)).passed_over() == (
        PassedOver("manifest.json", "not a .dbn or .dbn.zst file"),
        PassedOver(path.name, "schema ohlcv-1d; read are mbp-1, tbbo, bbo-1s, bbo-1m, trades"),
    )


def test_a_file_without_records_and_trades_alone_are_named(tmp_path):
    store = store_of(tmp_path, [])
    with pytest.raises(MarketError, match=r"no usable rows: x\.dbn"):
        store.catalog()
    (tmp_path / "t").mkdir()
    trades = open_market(databento(tmp_path / "t", DAYS[:1], schema="trades"))
    with pytest.raises(MarketError, match=r"trades of ABC\.XNAS without quotes"):
        trades.catalog()


def test_two_files_of_the_same_time_are_refused(tmp_path):
    databento(tmp_path, DAYS[:1])
    write_dbn(
        tmp_path / "copy.dbn", metadata(dbn.Schema.MBP_1, {"ABC": 7}), databento_records(DAYS[0])
    )
    store = open_market(str(tmp_path))
    with pytest.raises(MarketError, match="same time of the quotes of ABC") as caught:
        store.load(store.catalog()[0])
    assert "copy.dbn" in caught.value.where


def test_parts_of_a_day_follow_each_other(tmp_path):
    records = databento_records(DAYS[0])
    for name, part in (("b.dbn", records[200:]), ("a.dbn", records[:200])):
        write_dbn(tmp_path / name, metadata(dbn.Schema.MBP_1, {"ABC": 7}), part)
    whole = open_market(write_hive_sample(tmp_path / "hive" / "x", DAYS, "ABC.XNAS"))
    assert open_market(f"databento:{tmp_path}").read(ABC[0]).equals(whole.read(ABC[0]))


def test_rows_out_of_order_stay_in_the_order_of_the_file(tmp_path):
    found = load(store_of(tmp_path, [mbp1(7, T0 + i, BOOK) for i in (0, 5, 3)]))
    assert found.ticks["timestamp"].cast(pa.int64()).to_pylist() == [T0, T0 + 5, T0 + 3]


def test_the_digest_changes_with_the_file(tmp_path):
    store = open_market(databento(tmp_path, DAYS))
    before = [store.digest(day) for day in ABC]
    assert before == [open_market(str(tmp_path)).digest(day) for day in ABC]
    databento(tmp_path, [sample(299, date=DATES[1])])
    after = [open_market(str(tmp_path)).digest(day) for day in ABC]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_a_day_that_is_not_there_is_refused(tmp_path):
    store = open_market(databento(tmp_path, DAYS))
    with pytest.raises(MarketError, match=r"no quotes of ABC\.XNAS on 2024-08-10"):
        store.load(InstrumentDay(dt.date(2024, 8, 10), "ABC.XNAS"))
