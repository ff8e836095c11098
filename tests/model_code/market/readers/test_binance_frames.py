"""Recorded frames: the ticks of a Hive store of them, the book over midnight, faults counted."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from model_code.errors import MarketError
from model_code.market.readers.binance_frames import BinanceFramesStore
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from tests.support.frames import Recorder, depth_rows, recording, write_lines
from tests.support.market import DATES, hive, ticks

NAMES = ("spot_aaa", "usdm_bbb", "cm_bbb_perp")
SYMBOLS = ("AAA.spot", "BBB.usdm", "BBB_PERP.coinm")
FIRST, SECOND = (InstrumentDay(date, SYMBOLS[0]) for date in DATES)


def opened(uri: str) -> BinanceFramesStore:
    store = open_market(uri)
    assert isinstance(store, BinanceFramesStore)
    return store


def lines_of(path: Path) -> list[str]:
    return gzip.open(path, "rt").read().splitlines()


def rewrite(path: Path, lines: list[str]) -> None:
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")


def test_the_catalog_names_instruments_as_the_venues_do(tmp_path: Path) -> None:
    store = opened(recording(tmp_path, 20, names=NAMES))
    assert [(day.date, day.symbol) for day in store.catalog()] == [
        (date, symbol) for date in DATES for symbol in SYMBOLS
    ]
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "spot_aaa_20241399.gz").write_bytes(b"")
    passed = opened(str(tmp_path)).passed_over()
    assert [item.path for item in passed] == ["notes.txt", "spot_aaa_20241399.gz"]


def test_ticks_equal_those_of_a_hive_store(tmp_path: Path) -> None:
    frames = opened(recording(tmp_path / "frames", 300))
    other = open_market(hive(tmp_path / "hive", 300, symbols=("spot_aaa",)))
    for day, same in zip(frames.catalog(), other.catalog(), strict=True):
        loaded = frames.load(day)
        assert loaded.notes.warnings == ()
        assert loaded.notes.files == (f"spot_aaa_{day.date:%Y%m%d}.gz",)
        assert loaded.ticks.drop_columns(["symbol"]).equals(
            other.read(same).drop_columns(["symbol"])
        )
        assert frames.read(day).equals(loaded.ticks)


@pytest.mark.parametrize(("name", "symbol"), [*zip(NAMES, SYMBOLS, strict=True)])
def test_the_book_is_rebuilt_and_carried_over_midnight(
    tmp_path: Path, name: str, symbol: str
) -> None:
    uri = recording(tmp_path, 200, names=(name,))
    store = opened(uri)
    days = [InstrumentDay(date, symbol) for date in DATES]
    found = [store.depth(day) for day in days]
    alone = opened(uri).depth(days[1])
    again = store.depth(days[0])
    for rows, date in zip((*found, alone, again), (*DATES, DATES[1], DATES[0]), strict=True):
        assert rows is not None
        assert rows.notes == ()
        expected = depth_rows(ticks(200, 0, name, date))
        np.testing.assert_array_equal(rows.timestamp_N, expected.timestamp_N)
        for part_NL, expected_NL in zip(rows.levels, expected.levels, strict=True):
            np.testing.assert_array_equal(part_NL, expected_NL)


def test_a_missing_event_discards_the_book_until_the_next_snapshot(tmp_path: Path) -> None:
    recorder = Recorder("AAA", futures=False)
    first = recorder.day(ticks(200, 0, "spot_aaa", DATES[0]), snapshot=True)
    second = recorder.day(ticks(200, 0, "spot_aaa", DATES[1]), snapshot=True)
    depths = [place for place, (_, text) in enumerate(first) if "depthUpdate" in text]
    del first[depths[10]]
    for date, lines in zip(DATES, (first, second), strict=True):
        write_lines(tmp_path / f"spot_aaa_{date:%Y%m%d}.gz", lines)
    store = opened(str(tmp_path))
    found = store.depth(FIRST)
    assert found is not None
    assert len(found.timestamp_N) == 11
    assert found.notes == (
        "gaps in the depth events, the book discarded until the next snapshot: 1",
        "depth events left out, no book: 38",
    )
    whole = store.depth(SECOND)
    assert whole is not None
    assert len(whole.timestamp_N) == 50
    assert whole.notes == ()


def test_without_a_snapshot_or_depth_frames_there_is_nothing_to_see(tmp_path: Path) -> None:
    recorder = Recorder("AAA", futures=False)
    lines = recorder.day(ticks(40, 0, "spot_aaa", DATES[0]), snapshot=False)
    write_lines(tmp_path / "spot_aaa_20240808.gz", lines)
    quotes = [line for line in lines if "depthUpdate" not in line[1]]
    write_lines(tmp_path / "spot_bbb_20240808.gz", quotes)
    rows = opened(str(tmp_path)).depth(FIRST)
    assert rows is not None
    assert not len(rows.timestamp_N)
    assert rows.notes == ("depth events left out, no book: 10",)
    assert opened(str(tmp_path)).depth(InstrumentDay(DATES[0], "BBB.spot")) is None


def test_lines_that_are_no_frames_are_counted_with_their_reasons(tmp_path: Path) -> None:
    path = Path(recording(tmp_path, 50, dates=DATES[:1])) / "spot_aaa_20240808.gz"
    lines = lines_of(path)
    clean = opened(str(tmp_path)).load(FIRST)
    stamp = lines[5].split()[0]
    faulty = [
        *lines[:5],
        lines[5][:-4],  # cut off
        "",
        lines[6].partition(" ")[2],  # no stamp
        f"{2**63} {{}}",
        f'{stamp} {{"result":null,"id":1}}',
        lines[5].replace('"AAA"', '"BBB"'),
        *lines[5:],
    ]
    rewrite(path, faulty)
    loaded = opened(str(tmp_path)).load(FIRST)
    assert loaded.ticks.equals(clean.ticks)
    assert loaded.notes.warnings == (
        "frames left out: 6, the first in line 6 (no receive time in ns: 3, not JSON: 1, "
        "not a bookTicker, trade, depthUpdate or REST book: 1, of another instrument: 1)",
    )


def test_damaged_missing_and_double_recordings_are_errors(tmp_path: Path) -> None:
    path = Path(recording(tmp_path, 50)) / "spot_aaa_20240808.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    store = opened(str(tmp_path))
    for read in (store.load, store.depth):
        with pytest.raises(MarketError, match="cannot decompress the file") as caught:
            read(FIRST)
        assert caught.value.where == str(path)
    with pytest.raises(MarketError, match=r"no recording of AAA\.spot on 2024-08-10"):
        store.load(InstrumentDay(DATES[1].replace(day=10), SYMBOLS[0]))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / path.name).write_bytes(whole)
    with pytest.raises(MarketError, match=r"two recordings hold AAA\.spot on 2024-08-08"):
        opened(str(tmp_path)).catalog()


def test_digests_follow_the_bytes_and_depth_those_of_earlier_files_too(tmp_path: Path) -> None:
    path = Path(recording(tmp_path, 30)) / "spot_aaa_20240808.gz"
    before = [
        (opened(str(tmp_path)).digest(day), opened(str(tmp_path)).supplements(day)["depth"])
        for day in (FIRST, SECOND)
    ]
    rewrite(path, lines_of(path)[:-1])
    after = [
        (opened(str(tmp_path)).digest(day), opened(str(tmp_path)).supplements(day)["depth"])
        for day in (FIRST, SECOND)
    ]
    assert before[0][0] != after[0][0]
    assert before[1][0] == after[1][0]
    assert all(old[1] != new[1] for old, new in zip(before, after, strict=True))


def test_real_recordings_hold_the_reference_ticks(binance: str, binance_frames: str) -> None:
    frames, reference = opened(binance_frames), open_market(binance)
    rows = trades = 0
    for day, same in zip(frames.catalog(), reference.catalog(), strict=True):
        loaded, expected = frames.load(day), reference.load(same)
        assert loaded.ticks.equals(expected.ticks), day
        assert loaded.notes.warnings == ()
        assert loaded.notes.trades == expected.notes.trades
        rows += loaded.ticks.num_rows
        trades += loaded.notes.trades.rows if loaded.notes.trades else 0
    assert (rows, trades) == (335_931, 78_638)


@pytest.mark.parametrize("symbol", ["ETHUSDT.spot", "ETHUSDT.usdm"])
def test_real_books_have_no_gap_and_agree_with_the_quotes(binance_frames: str, symbol: str) -> None:
    store = opened(binance_frames)
    for day in (day for day in store.catalog() if day.symbol == symbol):
        rows = store.depth(day)
        assert rows is not None
        assert rows.notes == ()
        assert len(rows.timestamp_N) > 3000
        assert not np.isnan(rows.levels[0]).any()
        ticks = store.read(day)
        time_N = ticks["timestamp"].to_numpy().astype(np.int64)
        row_N = np.maximum(np.searchsorted(time_N, rows.timestamp_N, "right") - 1, 0)
        for part_NL, name in zip(rows.levels[::2], ("bid_price", "ask_price"), strict=True):
            agree = part_NL[:, 0] == ticks[name].to_numpy()[row_N]
            assert agree.mean() > 0.75
