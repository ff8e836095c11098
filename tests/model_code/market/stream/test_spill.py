import polars as pl
import pyarrow as pa
import pytest

from model_code.market.stream import spill
from model_code.market.stream.rows import whole
from model_code.market.stream.spill import SpilledRows


def test_rows_are_read_again_in_order_with_the_types_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spill, "CHUNK_ROWS", 2)
    rows = SpilledRows()
    rows.add(pl.DataFrame({"a": [1, 2, 3], "b": [None, None, None]}))
    rows.add(pl.DataFrame({"a": [4], "b": [0.5]}))
    assert rows.rows == 4
    assert [chunk.num_rows for chunk in rows.chunks()] == [2, 1, 1]
    for _ in range(2):
        assert whole(rows).to_pydict() == {"a": [1, 2, 3, 4], "b": [None, None, None, 0.5]}
    assert rows.schema.field("b").type == pa.float64()
    assert next(rows.chunks(("b", "c"))).schema.names == ["b"]


def test_two_passes_at_once_do_not_disturb_each_other() -> None:
    rows = SpilledRows()
    for at in range(3):
        rows.add(pl.DataFrame({"a": [at]}))
    first, second = rows.chunks(), rows.chunks()
    pairs = [(one["a"][0].as_py(), next(second)["a"][0].as_py()) for one in first]
    assert pairs == [(0, 0), (1, 1), (2, 2)]


def test_a_column_can_be_left_out_and_no_rows_are_one_empty_chunk() -> None:
    rows = SpilledRows()
    rows.add(pl.DataFrame({"a": [1.0], "b": [2.0]}).clear())
    rows.leave_out("b")
    assert [(chunk.num_rows, chunk.schema.names) for chunk in rows.chunks()] == [(0, ["a"])]
