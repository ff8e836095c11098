import pyarrow as pa
import pytest

from model_code.market.stream.rows import TableRows, present, whole

TABLE = pa.table({"a": [1, 2, 3, 4, 5], "b": list("vwxyz")})


@pytest.mark.parametrize(
    ("size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5]), (None, [5])]
)
def test_chunks_are_the_rows_in_order_as_often_as_they_are_read(
    size: int | None, sizes: list[int]
) -> None:
    rows = TableRows(TABLE, size)
    for _ in range(2):
        assert [chunk.num_rows for chunk in rows.chunks()] == sizes
        assert whole(rows).equals(TABLE)


def test_only_the_columns_asked_for_are_read_and_absent_ones_left_out() -> None:
    rows = TableRows(TABLE, 2)
    assert {tuple(chunk.column_names) for chunk in rows.chunks(("b", "c"))} == {("b",)}
    assert present(rows.schema, ("c", "b", "a")) == ["b", "a"]


def test_an_empty_table_is_one_empty_chunk() -> None:
    assert [chunk.num_rows for chunk in TableRows(TABLE.slice(0, 0), 3).chunks()] == [0]
