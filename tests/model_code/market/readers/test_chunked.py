"""The rules that every chunked format shares, with chunks made by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import polars as pl
import pyarrow as pa
import pytest

from model_code.errors import MarketError
from model_code.market.readers.chunked import Chunk, ChunkedStore
from model_code.market.readers.files import PassedOver
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from model_code.market.stream import spill
from tests.support import formats
from tests.support.market import DATES, epoch_ns

T0 = epoch_ns(DATES[0], 14.0)
DAY = InstrumentDay(DATES[0], "A")


class HandMade(ChunkedStore):
    KIND: ClassVar[str] = "hand-made"
    LAYOUT = "files of the test"

    def __init__(
        self, folder: Path, chunks: dict[str, list[Chunk]], protocol: str = "file"
    ) -> None:
        super().__init__(str(folder), fsspec.filesystem(protocol), str(folder))
        self.chunks = {f"{folder}/{name}": parts for name, parts in chunks.items()}

    def _refusal(self, path: str) -> str | None:
        return None if path in self.chunks else "not of the test"

    def _chunks(self, path: str) -> Iterator[Chunk]:
        yield from self.chunks[path]


def quotes(*seconds: int, symbol: str = "A", **more: Any) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(seconds),
            "timestamp": [T0 + second * 10**9 for second in seconds],
            "bid_price": [100.0] * len(seconds),
            "ask_price": [101.0] * len(seconds),
            "bid_size": [1.0] * len(seconds),
            "ask_size": [1.0] * len(seconds),
        }
        | {name: [value] * len(seconds) for name, value in more.items()}
    )


def trades(*seconds: int, **more: Any) -> pl.DataFrame:
    rows = quotes(*seconds, **more).rename({"bid_price": "price", "bid_size": "size"})
    return rows.drop("ask_price", "ask_size")


def store(folder: Path, **chunks: list[Chunk]) -> HandMade:
    for name in chunks:
        (folder / name).write_text(name)
    return HandMade(folder, chunks)


def test_a_day_is_only_its_own_rows_of_every_chunk(tmp_path: Path) -> None:
    midnight = 10 * 3600  # from 14:00
    made = store(
        tmp_path,
        a=[
            Chunk("quotes", quotes(0, 1)),
            Chunk("quotes", quotes(2, symbol="B")),
            Chunk("quotes", quotes(midnight - 1, midnight)),
        ],
    )
    assert made.catalog() == (
        InstrumentDay(DATES[0], "A", 3),
        InstrumentDay(DATES[0], "B", 1),
        InstrumentDay(DATES[1], "A", 1),
    )
    assert [made.read(day).num_rows for day in made.catalog()] == [3, 1, 1]


def test_rows_with_a_reason_are_counted_and_not_read(tmp_path: Path) -> None:
    made = store(
        tmp_path,
        a=[
            Chunk("quotes", quotes(0)),
            Chunk("quotes", quotes(1, 2).select("symbol", "timestamp"), "wrong"),
            Chunk("trades", trades(1).select("symbol", "timestamp"), "late"),
            Chunk("quotes", quotes(3, symbol="B"), "wrong"),
        ],
    )
    assert [day.rows for day in made.catalog()] == [1]
    tables = made.tables(DAY)
    assert tables.left_out == {"quotes left out, wrong": 2, "trades left out, late": 1}
    assert tables.notes.warnings == ("quotes left out, wrong: 2", "trades left out, late: 1")
    assert made.load(DAY).ticks.num_rows == 1


def test_positions_tell_the_order_only_where_quotes_and_trades_share_their_files(
    tmp_path: Path,
) -> None:
    def counted(**chunks: list[Chunk]) -> list[int]:
        found: list[int] = store(tmp_path, **chunks).read(DAY)["trade_count"].to_pylist()
        return found

    first, second = Chunk("quotes", quotes(0, position=0)), Chunk("quotes", quotes(5, position=4))
    trade = Chunk("trades", trades(5, position=2))
    assert counted(a=[first, trade, second]) == [0, 1]
    assert counted(a=[first, second], b=[trade]) == [0, 0]


def test_positions_go_on_from_one_part_to_the_next(tmp_path: Path) -> None:
    made = store(
        tmp_path,
        a=[Chunk("quotes", quotes(0, 5, position=8)), Chunk("trades", trades(5, position=9))],
        b=[Chunk("quotes", quotes(5, 6, position=0)), Chunk("trades", trades(6, position=7))],
    )
    assert made.read(DAY)["trade_count"].to_pylist() == [0, 0, 1, 0]


def test_only_files_of_the_lowest_rank_are_read(tmp_path: Path) -> None:
    made = store(
        tmp_path,
        a=[Chunk("quotes", quotes(0, 1), rank=1), Chunk("trades", trades(0), rank=1)],
        b=[Chunk("quotes", quotes(0, 1, 2), rank=0)],
    )
    assert made.catalog() == (InstrumentDay(DATES[0], "A", 3),)
    assert made.load(DAY).notes.files == ("b", "a")
    assert made.passed_over() == (PassedOver("a", "a finer file holds the quotes of its days"),)


def test_a_store_without_quotes_says_what_it_has(tmp_path: Path) -> None:
    made = store(tmp_path, a=[Chunk("trades", trades(0))], b=[])
    (tmp_path / "c").write_text("x")
    with pytest.raises(MarketError) as caught:
        made.catalog()
    text = str(caught.value)
    for part in ("trades of A without quotes: a", "no usable rows: b", "not of the test: c"):
        assert part in text
    assert "files of the test" in caught.value.remedy


def test_the_store_contains_its_root_and_what_is_below(tmp_path: Path) -> None:
    made = store(tmp_path)
    assert made.contains(tmp_path)
    assert made.contains(tmp_path / "x" / "y")
    assert not made.contains(tmp_path.parent)
    elsewhere = HandMade(tmp_path, {}, "memory")
    assert not elsewhere.contains(tmp_path)


@pytest.mark.parametrize("write", [formats.databento, formats.tardis, formats.lobster, formats.taq])
def test_a_day_in_chunks_is_the_day_in_memory(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "CHUNK_ROWS", 70)
    store = open_market(write(tmp_path / "source", [formats.sample(date=date) for date in DATES]))
    for day in store.catalog():
        stream, loaded = store.stream(day), store.load(day)
        parts = list(stream.chunks())
        assert len(parts) > 1
        assert pa.concat_tables(parts).equals(loaded.ticks)
        assert stream.notes == loaded.notes
