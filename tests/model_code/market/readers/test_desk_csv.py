import datetime as dt
import gzip
import io
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_code.errors import DataError, MarketError, SchemaError
from model_code.market.readers import desk_cells
from model_code.market.readers import desk_csv as reader
from model_code.market.readers.desk_csv import DeskCsvStore, symbol_of
from model_code.market.readers.files import Lines, PassedOver, lines_of, read_blocks
from model_code.market.readers.statement import Unit
from model_code.market.schema import TICKS, InstrumentDay
from model_code.market.store import open_market
from tests.support.market import DESK_HEADER, desk_csv, epoch_ns, ticks

ROW = "100.12,100.15,1200,1300,100.13,100.14,0.56,1"


def rows(*lines: str, header: str = DESK_HEADER) -> bytes:
    return "\n".join([header, *lines, ""]).encode()


def parse(data: bytes, where: str, unit: Unit | None = None, size: int = 1 << 20) -> pl.DataFrame:
    blocks = iter(partial(io.BytesIO(data).read, size), b"")
    return pl.concat(desk_cells.parse(lines_of(blocks, trim=True), where, unit))


def parse_times(*stamps: str) -> list[int]:
    out = parse(rows(*(f"{stamp},{ROW}" for stamp in stamps)), "a.csv")
    return out["timestamp"].cast(int).to_list()


def epoch(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    time = dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
    return int(time.timestamp()) * 10**9


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2025-01-23T09:30Z", epoch(2025, 1, 23, 9, 30)),
        ("2025-01-23T09:30.1Z", epoch(2025, 1, 23, 9, 30) + 100_000_000),
        ("2025-01-23T09:30:00Z", epoch(2025, 1, 23, 9, 30)),
        ("2025-01-23T09:30:00.1Z", epoch(2025, 1, 23, 9, 30) + 100_000_000),
        ("2025-01-23T23:59:59.999999999Z", epoch(2025, 1, 24) - 1),
        ("2024-02-29T00:00:07.25Z", epoch(2024, 2, 29, 0, 0, 7) + 250_000_000),
        ("2025-01-23 09:30:00.1+00:00", epoch(2025, 1, 23, 9, 30) + 100_000_000),
        ("2025-01-23 09:30:00+0000", epoch(2025, 1, 23, 9, 30)),
        ("2025-01-23 09:30Z", epoch(2025, 1, 23, 9, 30)),
    ],
)
def test_time_stamps_are_exact(stamp, expected):
    assert parse_times(stamp) == [expected]


@pytest.mark.parametrize(
    "stamp",
    [
        "2025-01-23T09:30",
        "2025-01-23  09:30Z",
        "2025-01-23 09:30:00",
        "2025-02-30T09:30Z",
        "2025-01-23T24:00Z",
        "2025-01-23T09:60Z",
        "2025-01-23T09:30:60Z",
        "2025-01-23T09:30:00.Z",
        "2025-01-23T09:30:00.1234567891Z",
        "2025-01-23T09:30:00+01:00",
        "",
        "soon",
    ],
)
def test_a_bad_time_stamp_names_line_column_and_text(stamp):
    with pytest.raises(DataError, match="column 'timestamp'") as caught:
        parse_times("2025-01-23T09:30Z", stamp)
    assert repr(stamp) in caught.value.what
    assert caught.value.where == "a.csv, line 3"


@given(
    st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2200, 1, 1)).map(
        lambda time: time.replace(microsecond=0)
    ),
    st.integers(0, 10**9 - 1),
    st.booleans(),
)
def test_any_stamp_survives(time, nanosecond, short):
    if short:
        time = time.replace(second=0)
    fraction = f".{nanosecond:09d}".rstrip("0").rstrip(".")
    text = time.isoformat(timespec="minutes" if short else "seconds") + fraction + "Z"
    expected = int((time - dt.datetime(1970, 1, 1)) / dt.timedelta(seconds=1)) * 10**9 + nanosecond
    assert parse_times(text) == [expected]


@settings(max_examples=50)
@given(st.text(max_size=25).filter(lambda text: not set(text) & set(",\r\n")))
def test_no_text_is_read_as_another_time(text):
    try:
        (time,) = parse_times(text)
    except DataError:
        return
    assert text.endswith(("Z", "+00:00", "+0000"))
    assert str(np.datetime64(time, "m"))[:16] == text[:16].replace(" ", "T")


def test_empty_cells_and_nan_reach_validation(tmp_path):
    (tmp_path / "AAA.csv").write_bytes(
        rows(
            "2025-01-23T09:30Z,NaN,100.15,,1300,,nan,0.56,7",
            "2025-01-23T09:30.1Z,,100.15,1,1300,100,100,0.56,",
        )
    )
    store = open_market(str(tmp_path))
    out = store.read(store.catalog()[0])
    assert out.schema == TICKS
    assert all(math.isnan(price) for price in out["bid_price"].to_pylist())
    assert out["bid_size"].to_pylist() == [None, 1.0]
    assert out["last_trade"].to_pylist() == [None, 100.0]
    assert out["label"].to_pylist() == [7, None]
    assert out["trade_count"].to_pylist() == [0, 0]


@pytest.mark.parametrize(
    ("line", "column", "text"),
    [
        ("2025-01-23T09:30Z,x,100.15,1,1,1,1,0.5,1", "bid_price", "x"),
        ("2025-01-23T09:30Z,1,1e,1,1,1,1,0.5,1", "ask_price", "1e"),
        ("2025-01-23T09:30Z,1,2,1,1,1,1,0.5,x", "label", "x"),
        ("2025-01-23T09:30Z,1,2,1,1,1,1,0.5,0.5", "label", "0.5"),
    ],
)
def test_a_non_numeric_cell_names_line_column_and_text(line, column, text):
    with pytest.raises(SchemaError, match=f"'{column}' has the wrong type") as caught:
        parse(rows(f"2025-01-23T09:30Z,{ROW}", line), "a.csv")
    assert f"found {text!r}" in caught.value.what
    assert caught.value.where == "a.csv, line 3"


@pytest.mark.parametrize(
    ("line", "found"), [("2025-01-23T09:30Z,100.1", 2), (f"2025-01-23T09:30Z,{ROW},5", 10)]
)
def test_a_ragged_row_names_its_line(line, found):
    good = f"2025-01-23T09:30Z,{ROW}"
    with pytest.raises(SchemaError, match=f"expected 9 cells, found {found}") as caught:
        parse(rows(good, line, good), "a.csv")
    assert caught.value.where == "a.csv, line 3"


def test_a_blank_line_is_named_inside_and_ignored_at_the_end():
    good = f"2025-01-23T09:30Z,{ROW}"
    assert len(parse(rows(good, "", ""), "a.csv")) == 1
    with pytest.raises(DataError, match="column 'timestamp': ''") as caught:
        parse(rows(good, "", good), "a.csv")
    assert caught.value.where == "a.csv, line 3"


def test_a_header_alone_is_an_empty_store(tmp_path):
    (tmp_path / "AAA.csv").write_bytes(rows())
    store = open_market(str(tmp_path))
    with pytest.raises(MarketError, match=r"no instrument-day found; 1 files: AAA\.csv"):
        store.catalog()
    assert store.passed_over() == (PassedOver("AAA.csv", "a header without rows"),)


def test_a_missing_column_is_named():
    header = DESK_HEADER.replace("ask_price,", "")
    with pytest.raises(SchemaError, match="column 'ask_price' is missing"):
        parse(rows(header=header), "a.csv")


def test_columns_are_read_by_name_in_any_order():
    header = DESK_HEADER.replace("bid_price,ask_price", "ask_price,bid_price")
    out = parse(rows(f"2025-01-23T09:30Z,{ROW}", header=header), "a.csv")
    assert out["ask_price"].to_list() == [100.12]
    assert out["bid_price"].to_list() == [100.15]


def test_a_column_that_is_there_twice_is_refused():
    with pytest.raises(SchemaError, match="column 'vwap' is there twice"):
        parse(rows(header=f"{DESK_HEADER},vwap"), "a.csv")


def test_columns_of_other_names_are_not_used_and_named(tmp_path):
    text = rows(f"2025-01-23T09:30Z,{ROW},x,y", header=f"{DESK_HEADER},venue,note")
    (tmp_path / "AAA.csv").write_bytes(text)
    store = open_market(str(tmp_path))
    found = store.load(store.catalog()[0])
    assert found.notes.warnings == ("columns not used: venue, note",)
    assert found.ticks.num_rows == 1


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_files_are_read(tmp_path, ending):
    text = rows(f"2025-01-23T09:30Z,{ROW}")
    zstd: bytes = pa.compress(text, codec="zstd", asbytes=True)
    data = gzip.compress(text) if ending == ".gz" else zstd
    path = tmp_path / f"AAA_2025-01-23.csv{ending}"
    path.write_bytes(data)
    store = open_market(str(tmp_path))
    assert store.catalog() == (InstrumentDay(dt.date(2025, 1, 23), "AAA", 1),)
    assert store.read(store.catalog()[0])["bid_price"].to_pylist() == [100.12]
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MarketError, match="cannot decompress the file") as caught:
        open_market(str(tmp_path)).catalog()
    assert caught.value.where == str(path)


def test_bytes_that_are_not_text_are_refused():
    with pytest.raises(SchemaError, match="not readable as CSV"):
        parse(rows(f"\xff,{ROW}").decode().encode("latin-1"), "a.csv")


def test_windows_line_ends_and_byte_order_mark():
    text = rows(f"2025-01-23T09:30Z,{ROW}").replace(b"\n", b"\r\n")
    out = parse(b"\xef\xbb\xbf" + text, "a.csv")
    assert out["label"].to_list() == [1]


def test_a_file_of_two_days_is_split(tmp_path):
    path = tmp_path / "XYZ.csv"
    path.write_bytes(
        rows(*(f"{stamp},{ROW}" for stamp in ("2025-01-23T23:59Z", "2025-01-24T00:00.1Z")))
    )
    store = open_market(str(path))
    days = [InstrumentDay(dt.date(2025, 1, 23 + i), "XYZ", 1) for i in (0, 1)]
    assert list(store.catalog()) == days
    assert [store.read(day)["label"].to_pylist() for day in days] == [[1], [1]]


STAMPS = [f"2025-01-2{day}T09:3{minute}Z" for day in (3, 4) for minute in range(10)]
CELLS = st.sampled_from(["1", "0", "1.0", "", "-1", "0.30000000000000004", "1e-3", "nan", '"2"'])


@given(
    st.lists(
        st.tuples(st.sampled_from(STAMPS), st.lists(CELLS, min_size=7, max_size=7)), max_size=9
    ),
    st.lists(st.sampled_from(["", "0", "1", "1.0"]), min_size=9, max_size=9),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 300),
)
def test_a_file_parsed_in_blocks_is_the_file_parsed_at_once(
    found: list[tuple[str, list[str]]], labels: list[str], end: str, size: int
) -> None:
    lines = [
        ",".join([stamp, *cells, label])
        for (stamp, cells), label in zip(found, labels, strict=False)
    ]
    data = rows(*lines).replace(b"\n", end.encode())
    whole = parse(data, "a.csv", size=1 << 20)
    assert parse(data, "a.csv", size=size).equals(whole, null_equal=True)
    assert len(whole) == len(lines)


@pytest.mark.parametrize("size", [1, 150, 1 << 20])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"2025-01-23 24:00Z,{ROW}", "is not a time stamp"),
        (f"2025-01-23T09:30Z,{ROW.replace('1200', 'many')}", "column 'bid_size'"),
        (f"2025-01-23T09:30Z,{ROW}".removesuffix(",1"), "expected 9 cells, found 8"),
        ("", "column 'timestamp': ''"),
        (f"\xff,{ROW}", "not UTF-8"),
    ],
)
def test_a_fault_has_its_line_in_the_file_in_any_block(line: str, message: str, size: int) -> None:
    good = f"2025-01-23T09:30Z,{ROW}"
    data = rows(good, good, good, line, good, good).decode().encode("latin-1")
    with pytest.raises(DataError, match=message) as caught:
        parse(data, "a.csv", size=size)
    assert caught.value.where == "a.csv, line 5"


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("first", ["1737624600000", "2025-01-23T09:30Z"])
def test_integers_and_times_in_one_file_are_refused(first: str, size: int) -> None:
    other = {"1737624600000": "2025-01-23T09:30Z"}.get(first, "1737624600000")
    data = rows(*(f"{stamp},{ROW}" for stamp in (first, first, other)))
    with pytest.raises(DataError, match="is not a time stamp"):
        parse(data, "a.csv", "ms", size)
    assert len(parse(rows(*[f"{first},{ROW}"] * 3), "a.csv", "ms", size)) == 3


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_file_of_many_days_is_parsed_once_in_blocks(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dates = [dt.date(2025, 1, 1) + dt.timedelta(days=i) for i in range(60)]
    order = [*dates, *dates[::7]]  # some days come again at the end
    text = rows(
        *(
            f"{date}T{9 + turn // 60:02}:{minute:02}Z,{ROW.replace('1200', f'{turn}{minute}')}"
            for turn, date in enumerate(order)
            for minute in range(3)
        )
    )
    packed = {"": text, ".gz": gzip.compress(text), ".zst": pa.compress(text, "zstd", asbytes=True)}
    (tmp_path / f"XYZ.csv{ending}").write_bytes(packed[ending])
    monkeypatch.setattr(reader, "read_blocks", lambda fs, at: read_blocks(fs, at, 500))
    calls: list[str] = []
    sizes: list[int] = []

    def counted(blocks: Iterator[Lines], where: str, unit: Unit | None) -> Iterator[pl.DataFrame]:
        calls.append(where)
        for frame in desk_cells.parse(blocks, where, unit):
            sizes.append(len(frame))
            yield frame

    monkeypatch.setattr(reader, "parse", counted)
    store = open_market(str(tmp_path))
    catalog = store.catalog()
    assert [day.date for day in catalog] == dates
    whole = parse(text, "a.csv")
    for day in reversed(catalog):
        expected = whole.filter(pl.col("timestamp").dt.date() == day.date)
        out = store.read(day)
        assert out["bid_size"].to_pylist() == expected["bid_size"].to_list()
        assert out["timestamp"].to_pylist() == expected["timestamp"].to_list()
        assert day.rows == len(expected)
    assert len(calls) == 1
    assert sum(sizes) == len(whole)
    assert max(sizes) < 10


def test_a_day_of_two_files_is_joined_in_the_order_of_time(tmp_path):
    for part, hour in (("a", 10), ("b", 9)):
        (tmp_path / f"XYZ_2025-01-23_{part}.csv").write_bytes(
            rows(f"2025-01-23T{hour:02}:00Z,{ROW}")
        )
    store = open_market(str(tmp_path))
    (day,) = store.catalog()
    assert day.rows == 2
    hours = [
        time.hour
        for time in store.read(day)["timestamp"].cast(pa.timestamp("us", "UTC")).to_pylist()
    ]
    assert hours == [9, 10]


def test_two_files_of_the_same_time_are_refused(tmp_path):
    names = [f"XYZ_2025-01-23_{part}.csv" for part in ("a", "b")]
    for name, minutes in zip(names, ((0, 30), (10, 40)), strict=True):
        stamps = [f"2025-01-23T09:{minute:02}Z" for minute in minutes]
        (tmp_path / name).write_bytes(rows(*(f"{stamp},{ROW}" for stamp in stamps)))
    store = open_market(str(tmp_path))
    with pytest.raises(
        MarketError, match="two files cover the same time of XYZ 2025-01-23"
    ) as raised:
        store.read(store.catalog()[0])
    assert raised.value.where == f"{', '.join(names)} in {tmp_path}"


@pytest.mark.parametrize(
    ("path", "symbol"),
    [
        ("desk/AAA.csv", "AAA"),
        ("desk/BTCUSD_PERP.coinm_2024-08-08.csv", "BTCUSD_PERP.coinm"),
        ("desk/AAA_2024-08-08_morning.csv", "AAA"),
        ("desk/symbol=AAA.x/2024-08-08.csv", "AAA.x"),
        ("desk/symbol=EUR%2FUSD/part-0.csv", "EUR/USD"),
        ("AAA-20240808.csv.gz", "AAA"),
        ("AAA.2024-08.csv.zst", "AAA"),
        ("2024-08-08_AAA.csv", "AAA"),
        ("AAA/2024-08-08.csv", "AAA"),
        ("AAA_2024-08-08.csv/part-0.csv", "AAA"),
        ("2024-08-08.csv", ""),
        ("AAA_2024-13-01.csv", "AAA_2024-13-01"),
    ],
)
def test_symbol_of(path, symbol):
    assert symbol_of(path) == symbol


@pytest.mark.parametrize("label", [True, False])
def test_a_folder_of_files_reads_as_written(tmp_path, label):
    store = open_market(desk_csv(tmp_path / "desk", n=200, label=label))
    assert isinstance(store, DeskCsvStore)
    day = store.catalog()[0]
    assert [(day.symbol, day.rows), len(store.catalog())] == [("AAA", 200), 4]
    out, written = store.read(day), ticks(200, symbol="AAA")
    for name in ("bid_price", "ask_price", "bid_size", "vwap", "feature_ema_1min"):
        assert out[name].to_pylist() == written[name].to_pylist()
    stamps = out["timestamp"].cast(pa.int64()).to_numpy()
    assert np.array_equal(stamps, epoch_ns(day.date) + np.arange(200) * 100_000_000)
    assert out["label"].null_count == (0 if label else 200)
    assert len(store.digest(day)) == 64


def test_unknown_day_is_refused(tmp_path):
    store = open_market(desk_csv(tmp_path / "desk", n=5))
    with pytest.raises(MarketError, match="no rows for AAA on 1999-01-01"):
        store.read(InstrumentDay(dt.date(1999, 1, 1), "AAA"))
