import gzip

import fsspec
import polars as pl
import pytest

from model_code.errors import MarketError, SchemaError
from model_code.market.readers.csv_rows import blocks, parse_rows
from model_code.market.readers.files import read_blocks

COLUMNS = {"name": pl.String, "count": pl.Int64, "price": pl.Float64, "flag": pl.Boolean}
FS = fsspec.filesystem("file")


def parse(text, **more):
    return parse_rows(text.encode(), COLUMNS, "file.csv", "fix it", **more)


def test_cells_have_their_types():
    found = parse("a,1,2.5,true\nb,2,,0\n", exact=True)
    assert found.rows() == [("a", 1, 2.5, True), ("b", 2, None, False)]


@pytest.mark.parametrize(
    ("text", "column", "cell"),
    [
        ("a,1,2.5,true\nb,x,2.5,true\n", "count", "'x'"),
        ("a,1,2.5,true\nb,,2.5,true\n", "count", "''"),
        ("a,1,2.5,true\nb,1,2.5,maybe\n", "flag", "'maybe'"),
        ("a,1,2.5,true\nb,1,2;5,true\n", "price", "'2;5'"),
    ],
)
def test_a_cell_of_the_wrong_type_is_refused_with_its_line(text, column, cell):
    with pytest.raises(SchemaError, match=f"column '{column}'.*{cell}") as caught:
        parse(text, line=100)
    assert caught.value.where == "file.csv, line 101"


@pytest.mark.parametrize(
    "text",
    [
        "a,1,2.5,true\nb,1,2.5\nc,1,2.5,true\n",
        "a,1,2.5,true\nb,1,2.5,true,5\nc,1,2.5,true\n",
        "a,1,2.5,true\nb,1,2.5,true,5\nc,1,2.5\n",
        "a,1,2.5,true\n\nc,1,2.5,true\n",
    ],
    ids=["short", "long", "long and short", "empty"],
)
def test_a_line_with_other_cells_is_refused_with_its_number(text):
    with pytest.raises(SchemaError, match="expected 4 cells") as caught:
        parse(text, exact=True)
    assert caught.value.where == "file.csv, line 2"


def test_blocks_end_with_a_line_and_count_lines(tmp_path, monkeypatch):
    lines = [f"row {i}" for i in range(1000)]
    path = tmp_path / "file.csv.gz"
    path.write_bytes(gzip.compress(("\ufeff" + "\n".join(lines) + "\ncut").encode()))
    monkeypatch.setattr(
        "model_code.market.readers.csv_rows.read_blocks", lambda fs, at: read_blocks(fs, at, 100)
    )
    *whole, last = blocks(FS, str(path))
    assert len(whole) > 10
    assert b"".join(block.data for block in whole).decode().splitlines() == lines
    for block in whole:
        assert block.data.startswith(f"row {block.line - 1}\n".encode())
    assert last == (b"", 1001, b"cut")


@pytest.mark.parametrize("name", ["file.csv.gz", "file.csv.zst"])
def test_a_damaged_archive_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"nonsense" * 9)
    with pytest.raises(MarketError, match="cannot decompress"):
        list(blocks(FS, str(path)))
    with pytest.raises(MarketError, match="no such file"):
        list(blocks(FS, str(tmp_path / "absent.csv")))


def test_a_truncated_archive_is_refused(tmp_path):
    path = tmp_path / "file.csv.gz"
    path.write_bytes(gzip.compress(b"a,1\n" * 50_000)[:-20])
    with pytest.raises(MarketError, match="cannot decompress"):
        list(blocks(FS, str(path)))
