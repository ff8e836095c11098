from typing import Any

import pyarrow as pa
import pytest

from model_code.errors import DataError
from model_code.market.stream.quotes import books, scan_quotes, two_sided_rows
from model_code.market.stream.rows import TableRows

NS = pa.timestamp("ns", "UTC")
NAN = float("nan")


def quotes(time: list[Any], bid: list[float], ask: list[float]) -> pa.Table:
    return pa.table({"timestamp": pa.array(time, NS), "bid_price": bid, "ask_price": ask})


# a stamp ahead, a crossed quote far away, a missing bid
TABLE = quotes(
    [10**6, 2 * 10**6, 9 * 10**6, 3 * 10**6, 4 * 10**6, 5 * 10**6],
    [99.0, 99.5, 1.0, 300.0, NAN, 100.0],
    [101.0, 100.5, 2.0, 200.0, 101.0, 100.0],
)


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_the_book_is_of_two_sided_quotes_in_order(size: int) -> None:
    rows = TableRows(TABLE, size)
    facts = scan_quotes(rows)
    assert (facts.rows, facts.resolution) == (6, "1 ms")
    assert facts.disorder.row_K.tolist() == [2]
    assert (facts.first, facts.last) == (10**6, 5 * 10**6)
    assert (facts.earliest, facts.latest) == (10**6, 9 * 10**6)
    assert (facts.lowest, facts.highest) == (99.0, 101.0)
    assert facts.tightest_bps == pytest.approx(100.0)
    found = [time for book in books(rows, facts.unusable) for time in book.time_ns.tolist()]
    assert found == [10**6, 2 * 10**6, 5 * 10**6]


def test_without_rows_there_are_no_figures() -> None:
    facts = scan_quotes(TableRows(TABLE.slice(0, 0)))
    assert (facts.rows, facts.first, facts.latest, facts.tightest_bps) == (0, None, None, 0.0)
    assert facts.lowest != facts.lowest  # NaN


def test_a_locked_quote_is_two_sided_and_a_crossed_one_is_not() -> None:
    assert two_sided_rows(TABLE).bid.tolist() == [99.0, 99.5, 1.0, 100.0]


def test_a_missing_stamp_is_refused_with_the_file() -> None:
    with pytest.raises(DataError, match="'timestamp' has 1 null") as caught:
        scan_quotes(TableRows(quotes([1, None], [1.0, 1.0], [2.0, 2.0])), "file")
    assert caught.value.where == "file"
