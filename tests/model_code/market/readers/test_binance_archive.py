import datetime as dt
import math
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from model_code.errors import MarketError, SchemaError
from model_code.market.readers import binance_archive, binance_csv
from model_code.market.readers.binance_archive import BinanceArchiveStore
from model_code.market.readers.files import PassedOver
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


def trade_times(folder):
    """First and last stamp."""
    store = open_market(str(folder))
    trades = store.load(store.catalog()[0]).notes.trades
    assert trades is not None
    return [trades.first, trades.last]


def test_quotes_are_in_the_order_of_their_times_and_trades_of_the_same_stamp_come_later(folder):
    store = open_market(str(folder))
    assert isinstance(store, BinanceArchiveStore)
    assert store.catalog() == (InstrumentDay(DATE, "BTCUSDT.binance"),)
    out = read(folder)
    times = out["timestamp"].cast(pa.int64()).to_pylist()
    assert times == [1709251200000 * 10**6 + ms * 10**6 for ms in (0, 400, 500)]
    assert out["bid_price"].to_pylist() == [100.0, 100.1, 100.2]
    assert out["ask_size"].to_pylist() == [6.0, 7.0, 6.0]
    assert out["trade_count"].to_pylist() == [0, 1, 0]
    assert out["buy_volume"].to_pylist() == [0.0, 2.0, 0.0]
    assert out["sell_volume"].to_pylist() == [0.0, 0.0, 0.0]
    assert out["last_trade"].to_pylist() == [None, 100.1, 100.1]
    notes = store.load(store.catalog()[0]).notes
    assert (notes.moved, notes.repeated, notes.resolution) == (1, 0, "100 ms")
    assert notes.files == (f"BTCUSDT-bookTicker-{DATE}.zip", f"BTCUSDT-trades-{DATE}.zip")
    assert notes.aggressor == "flag"


def test_a_row_with_an_update_id_seen_before_is_left_out_and_counted(folder):
    put(folder, "bookTicker", BOOK + "1,100.0,5,100.1,6,1709251200600,1709251200600\n")
    store = open_market(str(folder))
    found = store.load(store.catalog()[0])
    assert found.ticks.num_rows == 3
    assert found.notes.repeated == 1


def test_rows_of_one_time_are_in_the_order_of_their_update_ids(folder):
    same = BOOK.replace("1709251200500,", "1709251200400,")
    put(folder, "bookTicker", same.replace("\n1,", "\n9,"))
    assert read(folder)["bid_price"].to_pylist() == [100.0, 100.2, 100.1]


def test_without_header_and_in_microseconds(folder):
    lines = TRADES.splitlines()[1:]
    spot = [line.replace("00,", "00123,").replace("false", "False,True") for line in lines]
    spot = [line.replace("true", "True,True") for line in spot]
    put(folder, "trades", "\n".join(spot))
    assert trade_times(folder) == [
        dt.datetime(2024, 3, 1, microsecond=us, tzinfo=dt.UTC) for us in (100_123, 500_123)
    ]
    assert read(folder)["trade_count"].to_pylist() == [0, 1, 0]
    put(folder, "trades", "\n".join(lines))
    assert trade_times(folder) == [
        dt.datetime(2024, 3, 1, microsecond=us, tzinfo=dt.UTC) for us in (100_000, 500_000)
    ]


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
    ("text", "message", "line"),
    [
        (BOOK.replace("100.0", "cheap"), "'bid_price': expected Float64, found 'cheap'", 2),
        (BOOK.replace("1709251200400,", "later,"), "'time': expected Int64, found 'later'", 4),
        ("update_id,best_bid_price\n1,100.0\n", r"expected 7 columns \(update_id, bid_pr", None),
    ],
)
def test_wrong_columns_or_types_name_the_file_and_the_line(folder, text, message, line):
    path = put(folder, "bookTicker", text)
    with pytest.raises(SchemaError, match=message) as caught:
        read(folder)
    assert caught.value.where == (f"{path}, line {line}" if line else str(path))


def test_an_invalid_flag_is_a_schema_error(folder):
    put(folder, "trades", TRADES.replace("true", "maybe"))
    with pytest.raises(SchemaError, match="'buyer_is_maker': expected Boolean, found 'maybe'"):
        read(folder)


def test_a_truncated_zip_is_named(folder):
    path = folder / f"BTCUSDT-bookTicker-{DATE}.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MarketError, match="truncated or corrupt") as caught:
        read(folder)
    assert caught.value.where == str(path)


def test_an_unknown_day_is_refused(folder):
    with pytest.raises(
        MarketError, match=r"no bookTicker archive of BTCUSDT\.binance on 1999-01-01"
    ):
        open_market(str(folder)).read(InstrumentDay(dt.date(1999, 1, 1), "BTCUSDT.binance"))


def test_digest_covers_trades(folder):
    store = open_market(str(folder))
    before = store.digest(store.catalog()[0])
    put(folder, "trades", TRADES.replace("100.2,1", "100.3,1"))
    assert store.digest(store.catalog()[0]) != before


def month(folder: Path, kind: str, text: str) -> Path:
    path = folder / "data" / "monthly" / f"BTCUSDT-{kind}-2024-03.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("month.csv", text)
    return path


def test_a_monthly_archive_at_any_depth_is_its_days(tmp_path: Path) -> None:
    day_ms = 86_400_000
    later = BOOK.replace("17092512", str(17092512 + day_ms // 10**5))
    month(tmp_path, "bookTicker", BOOK + later.split("\n", 1)[1])
    store = open_market(str(tmp_path))
    days = [InstrumentDay(DATE + dt.timedelta(days=i), "BTCUSDT.binance") for i in (0, 1)]
    assert list(store.catalog()) == days
    assert [store.read(day).num_rows for day in days] == [3, 3]
    put(tmp_path, "bookTicker", BOOK)
    with pytest.raises(
        MarketError, match="two archives hold the bookTicker of BTCUSDT on 2024-03-01"
    ) as caught:
        open_market(str(tmp_path)).catalog()
    assert f"BTCUSDT-bookTicker-{DATE}.zip" in caught.value.where
    assert "data/monthly/BTCUSDT-bookTicker-2024-03.zip" in caught.value.where


def test_an_unpacked_archive_is_read_and_a_copy_beside_its_zip_is_named(folder: Path) -> None:
    copy = folder / f"BTCUSDT-bookTicker-{DATE}.csv"
    copy.write_text(BOOK)
    expected = read(folder)
    assert open_market(str(folder)).passed_over() == (
        PassedOver(copy.name, "unpacked copy of an archive beside it"),
    )
    copy.with_suffix(".zip").unlink()
    assert open_market(str(folder)).passed_over() == ()
    assert read(folder).equals(expected)


def test_a_byte_order_mark_and_several_csv_files_in_one_zip(folder: Path) -> None:
    expected = read(folder)
    header, *lines = BOOK.splitlines()
    path = folder / f"BTCUSDT-bookTicker-{DATE}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("part-10.csv", "\n".join(lines[1:]))
        archive.writestr("part-9.csv", f"\ufeff{header}\n{lines[0]}\n")
        archive.writestr("__MACOSX/part-1.csv", "no ticks")
    assert read(folder).equals(expected)


def test_files_that_are_not_read_are_named_with_the_reason(folder: Path) -> None:
    put(folder, "aggTrades", "1,100.1,2,7,8,1709251200100,true\n")
    put(folder, "trades", TRADES, symbol="ETHUSDT")
    (folder / "notes.txt").write_text("")
    (folder / f"BTCUSDT-trades-{DATE}.zip.CHECKSUM").write_text("")
    found = {item.path: item.reason for item in open_market(str(folder)).passed_over()}
    assert found == {
        "notes.txt": "not a bookTicker, trades or aggTrades archive",
        f"BTCUSDT-aggTrades-{DATE}.zip": "trades are used instead",
        f"ETHUSDT-trades-{DATE}.zip": "trades without quotes",
    }


def many(n: int = 400) -> str:
    first, *_ = BOOK.splitlines(keepends=True)
    rows = [f"{i},{100 + i / 10},5,{101 + i / 10},6,{1709251200000 + i},0\n" for i in range(n)]
    rows[7] = rows[7].replace(",5,", ",,")  # an empty size: its block is read as text
    return first + "".join(rows)


@pytest.mark.parametrize("header", [True, False])
def test_an_archive_read_in_blocks_is_the_archive_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: bool
) -> None:
    text = many()
    put(tmp_path, "bookTicker", text if header else text.partition("\n")[2])
    whole = read(tmp_path)
    assert whole.num_rows == 400
    for size in (1, 100, 1000):
        monkeypatch.setattr(binance_archive, "BLOCK", size)
        assert read(tmp_path).equals(whole)


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,100.0,5,100.1,6,1709251200000,0", "column 'update_id': expected Int64, found 'x'"),
        ("5,100.0,5", "column 'ask_price'|column 'time'"),
    ],
)
def test_a_fault_has_its_line_in_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, row: str, message: str
) -> None:
    monkeypatch.setattr(binance_archive, "BLOCK", size)
    lines = many().splitlines()
    lines[249] = row
    path = put(tmp_path, "bookTicker", "\n".join(lines))
    with pytest.raises(SchemaError, match=message) as caught:
        read(tmp_path)
    assert caught.value.where == f"{path}, line 250"


@pytest.mark.parametrize("size", [100, 1 << 20])
@pytest.mark.parametrize("stored", [True, False])
def test_a_damaged_member_is_found_by_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, stored: bool
) -> None:
    monkeypatch.setattr(binance_archive, "BLOCK", size)
    path = tmp_path / f"BTCUSDT-bookTicker-{DATE}.zip"
    kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("book.csv", many())
    good = path.read_bytes()
    for place in (len(good) // 4, len(good) // 2, len(good) - 200 if stored else len(good) // 3):
        data = bytearray(good)
        data[place] ^= 1  # a digit, or a comma, becomes another character
        path.write_bytes(data)
        with pytest.raises(MarketError, match="not readable as zip, truncated or corrupt"):
            read(tmp_path)


def test_a_month_is_parsed_once_for_all_its_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binance_archive, "BLOCK", 100)
    text = "".join(f"{i},100.0,5,100.1,6,{1709251200000 + 43_200_000 * i},0\n" for i in range(40))
    with zipfile.ZipFile(tmp_path / "BTCUSDT-bookTicker-2024-03.zip", "w") as archive:
        archive.writestr("book.csv", text)
    store = open_market(str(tmp_path))
    catalog = store.catalog()
    calls: list[str] = []

    def counted(blocks: Any, columns: Any, where: str) -> Any:
        calls.append(where)
        return binance_csv.parse(blocks, columns, where)

    monkeypatch.setattr(binance_archive, "parse", counted)
    ids = [store.read(day)["timestamp"].to_pylist() for day in reversed(catalog)]
    assert [len(found) for found in ids] == [2] * 20
    assert sorted(ids) == ids[::-1]
    assert len(calls) == 1
