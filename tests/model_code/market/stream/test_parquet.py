from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.errors import MarketError, SchemaError
from model_code.market.stream.parquet import ParquetRows, read_chunks, read_schema
from model_code.market.stream.rows import whole

FS = fsspec.filesystem("file")


def same(table: pa.Table, _: str) -> pa.Table:
    return table


def write(path: Path, **columns: list[object]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_parts_follow_each_other_with_the_columns_of_all(size: int, tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "a.parquet", a=[1, 2, 3], x=[0, 0, 0]),
        write(tmp_path / "b.parquet", a=[4.5], b=["z"]),
    ]
    rows = ParquetRows(FS, paths, ("a", "b"), same, "here", size, pa.schema([("c", pa.int8())]))
    assert rows.present == ["a", "b"]
    assert rows.schema.names == ["a", "b", "c"]
    for _ in range(2):
        assert whole(rows).to_pydict() == {
            "a": [1.0, 2.0, 3.0, 4.5], "b": [None, None, None, "z"], "c": [None] * 4,
        }  # fmt: skip
    assert next(rows.chunks(("a",))).schema.names == ["a"]


def test_each_chunk_is_converted_with_the_path_of_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", a=[1, 2])
    seen = []

    def convert(table: pa.Table, where: str) -> pa.Table:
        seen.append(where)
        return table.set_column(0, "a", table["a"].cast(pa.float64()))

    rows = ParquetRows(FS, [path], ("a",), convert, "here")
    assert rows.schema.field("a").type == pa.float64()
    assert whole(rows)["a"].to_pylist() == [1.0, 2.0]
    assert set(seen) == {path}


def test_parts_without_rows_are_one_empty_chunk(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", a=[])
    assert [c.num_rows for c in ParquetRows(FS, [path], ("a",), same, "here").chunks()] == [0]


def test_columns_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.parquet", a=[1]), write(tmp_path / "b.parquet", a=["x"])]
    with pytest.raises(SchemaError, match="the day's parts have different columns") as caught:
        ParquetRows(FS, paths, ("a",), same, "here")
    assert caught.value.where == "here"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", a=list(range(50_000)))
    assert read_schema(FS, path)[1] == 50_000
    data = bytearray(Path(path).read_bytes())
    data[10:5_000] = b"x" * 4_990
    Path(path).write_bytes(bytes(data))
    with pytest.raises(MarketError, match="truncated or corrupt") as caught:
        list(read_chunks(FS, path, ["a"]))
    assert caught.value.where == path
    Path(path).write_bytes(bytes(data[:-20]))
    with pytest.raises(MarketError, match="truncated or corrupt"):
        read_schema(FS, path)
