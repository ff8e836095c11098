import datetime as dt
import gzip
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_code.errors import MarketError, SchemaError
from model_code.market.readers.files import (
    Lines,
    PassedOver,
    digest_files,
    lines_of,
    natural,
    parse_date,
    parsed,
    partitions,
    read_blocks,
    refuse_overlap,
    relative,
    require_days,
    spell_dates,
    summarize,
    walk,
)

LOCAL = fsspec.filesystem("file")


def make(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return [relative(path, str(folder)) for path in walk(LOCAL, str(folder))]


def test_natural_order_compares_digits_as_numbers() -> None:
    names = ["part10", "part2", "part1", "part2b", "10", "9", "a", "x²"]
    assert sorted(names, key=natural) == [
        "9",
        "10",
        "a",
        "part1",
        "part2",
        "part2b",
        "part10",
        "x²",
    ]


def test_files_are_found_at_any_depth_in_natural_order(tmp_path: Path) -> None:
    found = make(tmp_path, "b/part-10.csv", "b/part-9.csv", "a/deep/er/1.csv", "0.csv")
    assert found == ["0.csv", "a/deep/er/1.csv", "b/part-9.csv", "b/part-10.csv"]


def test_hidden_files_and_folders_and_the_statement_are_no_data(tmp_path: Path) -> None:
    found = make(
        tmp_path, "_SUCCESS", ".a.csv", ".git/a.csv", "_old/a.csv", "tickline.yaml",
        "b/tickline.yaml", "a_b.csv",
    )  # fmt: skip
    assert found == ["a_b.csv", "b/tickline.yaml"]


def test_a_root_that_is_a_hidden_folder_or_a_file_is_read(tmp_path: Path) -> None:
    assert make(tmp_path / ".store" / "_x", "a.csv") == ["a.csv"]
    file = str(tmp_path / ".store" / "_x" / "a.csv")
    assert walk(LOCAL, file) == [file]
    assert relative(file, file) == "a.csv"


@pytest.mark.parametrize(
    "text",
    [
        "2025-03-03",
        "20250303",
        "2025-03-03 00:00:00",
        "2025-03-03T00:00:00Z",
        "2025-03-03 00:00:00.000000+00:00",
        "2025-03-03%2000%3A00%3A00",
    ],
)
def test_dates_and_midnights_are_read(text: str) -> None:
    assert parse_date(text) == dt.date(2025, 3, 3)


@pytest.mark.parametrize(
    "text",
    ["", "2025-02-30", "2025-3-3", "2025-03", "2025-03-03 09:00:00", "2025-03-03T00:00:00+01:00",
     "x2025-03-03", "2025-03-03x", "202503031", "2025-W10-1"],
)  # fmt: skip
def test_other_texts_are_no_date(text: str) -> None:
    assert parse_date(text) is None


def test_partitions_are_decoded_and_the_innermost_counts() -> None:
    path = "symbol=A/venue=x=y/symbol=EUR%2FUSD/date=2025-03-03.parquet"
    assert partitions(path) == {
        "symbol": "EUR/USD",
        "venue": "x=y",
        "date": "2025-03-03.parquet",
    }
    assert partitions("a/b.csv") == {}


def test_summarize_names_the_first_files_of_each_reason() -> None:
    passed = [PassedOver(f"{i}.txt", "not a .csv file") for i in range(4)]
    passed.insert(2, PassedOver("a.csv", "a header without rows"))
    assert summarize(passed) == (
        "4 files passed over, not a .csv file: 0.txt, 1.txt, 2.txt (all: tickline data describe)",
        "1 file passed over, a header without rows: a.csv",
    )
    assert summarize(passed[:2], shown=1)[0].endswith("0.txt (all: tickline data describe)")
    assert summarize([]) == ()


def test_parts_are_put_in_the_order_of_time_and_may_touch() -> None:
    spans = [("r/part-10", 20, 30), ("r/part-2", 20, 20), ("r/part-1", 5, 20)]
    assert refuse_overlap(spans, "A", "r") == [spans[2], spans[1], spans[0]]
    assert refuse_overlap([], "A", "r") == []


@pytest.mark.parametrize("other", [(5, 8), (9, 11), (0, 20), (2, 3)])
def test_parts_that_cover_the_same_time_are_refused_and_both_named(other: tuple[int, int]) -> None:
    with pytest.raises(
        MarketError, match="two files cover the same time of A 2025-03-03"
    ) as caught:
        refuse_overlap([("r/a", 1, 10), ("r/b", *other)], "A 2025-03-03", "r")
    first, second = ("b", "a") if other[0] < 1 else ("a", "b")
    assert caught.value.where == f"{first}, {second} in r"


def test_a_store_without_an_instrument_day_names_what_was_found() -> None:
    require_days(["a day"], [], "r", "x")
    with pytest.raises(MarketError, match="no instrument-day found; 4 files: 0, 1, 2 and 1 more"):
        require_days([], [f"r/{i}" for i in range(4)], "r", "x")
    with pytest.raises(MarketError, match="no instrument-day found; 0 files: none") as caught:
        require_days([], [], "r", "<S>.csv")
    assert caught.value.remedy == "name the files as expected: <S>.csv"


def test_dates_are_spelled_as_one_date_or_as_a_range() -> None:
    dates = [dt.date(2025, 3, day) for day in (3, 5, 7)]
    assert spell_dates(dates[:1]) == "2025-03-03"
    assert spell_dates(dates) == "3 days from 2025-03-03 to 2025-03-07"


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return iter(partial(io.BytesIO(data).read, size), b"")


def read(path: Path) -> bytes:
    return b"".join(read_blocks(LOCAL, str(path)))


@given(st.lists(st.sampled_from(["", " ", "a", "bc,d", "\r"])), st.integers(1, 9), st.booleans())
def test_blocks_are_whole_lines_and_the_last_has_the_blank_ones(
    lines: list[str], size: int, ended: bool
) -> None:
    data = ("\n".join(lines) + "\n" * ended).encode()
    blocks = list(lines_of(pieces(data, size)))
    assert b"".join(block for _, block in blocks) == data
    assert len(blocks) == 1 or all(block for _, block in blocks)
    line = 1
    for number, block in blocks:
        assert number == line
        line += block.count(b"\n")
    trimmed = b"".join(block for _, block in lines_of(pieces(data, size), trim=True))
    assert data.startswith(trimmed)
    assert trimmed.removesuffix(b"\n").rstrip() == data.rstrip()
    for k, (_, block) in enumerate(blocks[:-1]):
        assert block.endswith(b"\n")
        assert b"".join(later for _, later in blocks[k + 1 :]).strip()


def test_a_fault_of_the_text_waits_for_the_end_of_a_damaged_file() -> None:
    def damaged() -> Iterator[Lines]:
        yield 1, b"text"
        raise MarketError("cannot decompress")

    def refuse(_: Lines) -> None:
        raise SchemaError("not a number")

    with pytest.raises(MarketError, match="cannot decompress"):
        list(parsed(damaged(), refuse))
    with pytest.raises(SchemaError, match="not a number"):
        list(parsed(iter([(1, b"text"), (2, b"more")]), refuse))


def test_compressed_bytes_are_decompressed_and_damage_is_named(tmp_path: Path) -> None:
    plain = b"text" * 100
    files = {
        "a.csv": plain,
        "a.csv.gz": gzip.compress(plain),
        "a.csv.zst": pa.compress(plain, codec="zstd", asbytes=True),
    }
    for name, data in files.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert read(path) == plain
        if name != "a.csv":
            path.write_bytes(data[:-12])
            with pytest.raises(MarketError, match="cannot decompress the file") as caught:
                read(path)
            assert caught.value.where == str(path)
    with pytest.raises(MarketError, match="no such file"):
        read(tmp_path / "b.csv")


def test_the_digest_covers_names_bytes_and_order(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    paths = [str(tmp_path / name) for name in ("a", "b")]
    first = digest_files(LOCAL, paths)
    assert digest_files(LOCAL, paths) == first
    assert digest_files(LOCAL, paths[::-1]) != first
    (tmp_path / "a").write_text("other")
    assert digest_files(LOCAL, paths) != first


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst"])
def test_blocks_are_the_bytes_in_pieces(tmp_path: Path, name: str) -> None:
    data = bytes(range(256)) * 40
    packed = {
        "a.csv": data,
        "a.csv.gz": gzip.compress(data),
        "a.csv.zst": pa.compress(data, "zstd", asbytes=True),
    }
    path = tmp_path / name
    path.write_bytes(packed[name])
    blocks = list(read_blocks(LOCAL, str(path), 1000))
    assert b"".join(blocks) == data
    assert max(map(len, blocks)) <= 1000
    path.write_bytes(packed[name][:-9])
    if name != "a.csv":
        with pytest.raises(MarketError, match="cannot decompress"):
            list(read_blocks(LOCAL, str(path), 1000))
