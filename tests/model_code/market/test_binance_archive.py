import datetime as dt
import math
import zipfile

import pyarrow as pa
import pytest

from model_code.errors import MarketError, SchemaError
from model_code.market.binance_archive import BinanceArchiveStore
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market

DATE = dt.date(2024, 3, 1)
BOOK = (
    "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n"
    "1,100.0,5,100.1,6,1709251200000,1709251200003\n"
    "2,100.2,5,100.3,6,1709251200500,1709251200509\n"
    "3,100.1,4,100.2,7,1709251200400,1709251200401\n"
)
TRADES = (
    "id,price,qty,quote_qty,time,is_buyer_maker\n"
    "7,100.1,2,200.2,1709251200100,false\n"
    "8,100.2,1,100.2,1709251200500,true\n"
)


def put(folder, kind, text, symbol="BTCUSDT"):
    name = f"{symbol}-{kind}-{DATE}"
    with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.csv", text)
    return folder / f"{name}.zip"


@pytest.fixture
def folder(tmp_path):
    put(tmp_path, "bookTicker", BOOK)
    put(tmp_path, "trades", TRADES)
    return tmp_path


def read(folder):
    store = open_market(str(folder))
    return store.read(store.catalog()[0])


def test_quotes_and_trades_in_the_files_own_order(folder):
    store = open_market(str(folder))
    assert isinstance(store, BinanceArchiveStore)
    assert store.catalog() == (InstrumentDay(DATE, "BTCUSDT.binance"),)
    out = read(folder)
    times = out["timestamp"].cast(pa.int64()).to_pylist()
    assert times == [1709251200000 * 10**6 + ms * 10**6 for ms in (0, 500, 400)]
    assert out["bid_price"].to_pylist() == [100.0, 100.2, 100.1]
    assert out["ask_size"].to_pylist() == [6.0, 6.0, 7.0]
    assert out["trade_count"].to_pylist() == [0, 2, 0]
    assert out["buy_volume"].to_pylist() == [0.0, 2.0, 0.0]
    assert out["sell_volume"].to_pylist() == [0.0, 1.0, 0.0]
    assert out["last_trade"].to_pylist() == [None, 100.2, 100.1]


def test_without_header_and_in_microseconds(folder):
    lines = TRADES.splitlines()[1:]
    spot = [line.replace("00,", "00123,").replace("false", "False,True") for line in lines]
    spot = [line.replace("true", "True,True") for line in spot]
    put(folder, "trades", "\n".join(spot))
    out = read(folder)
    assert out["trade_count"].to_pylist() == [0, 1, 0]
    put(folder, "trades", "\n".join(lines))
    assert read(folder)["trade_count"].to_pylist() == [0, 2, 0]


def test_aggregate_trades_are_the_fallback(folder):
    (folder / f"BTCUSDT-trades-{DATE}.zip").unlink()
    assert read(folder)["last_trade"].null_count == 3
    put(
        folder,
        "aggTrades",
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
        "1,100.1,2,7,8,1709251200100,true\n",
    )
    assert read(folder)["sell_volume"].to_pylist() == [0.0, 2.0, 0.0]


def test_an_empty_price_reaches_validation(folder):
    put(folder, "bookTicker", BOOK.replace("1,100.0,5", "1,,5"))
    assert math.isnan(read(folder)["bid_price"][0].as_py())


@pytest.mark.parametrize(
    "text",
    [
        BOOK.replace("100.0", "cheap"),
        BOOK.replace("1709251200400,", "later,"),
        "update_id,best_bid_price\n1,100.0\n",
    ],
)
def test_wrong_columns_or_types_are_schema_errors(folder, text):
    path = put(folder, "bookTicker", text)
    with pytest.raises(SchemaError, match="expected") as caught:
        read(folder)
    assert caught.value.where == str(path)


def test_an_invalid_flag_is_a_schema_error(folder):
    put(folder, "trades", TRADES.replace("true", "maybe"))
    with pytest.raises(SchemaError, match="wrong types"):
        read(folder)


def test_a_truncated_zip_is_named(folder):
    path = folder / f"BTCUSDT-bookTicker-{DATE}.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MarketError, match="truncated or corrupt") as caught:
        read(folder)
    assert caught.value.where == str(path)


def test_an_unknown_day_is_refused(folder):
    with pytest.raises(MarketError, match="no such archive"):
        open_market(str(folder)).read(InstrumentDay(dt.date(1999, 1, 1), "BTCUSDT.binance"))


def test_digest_covers_trades(folder):
    store = open_market(str(folder))
    before = store.digest(store.catalog()[0])
    put(folder, "trades", TRADES.replace("100.2,1", "100.3,1"))
    assert store.digest(store.catalog()[0]) != before
