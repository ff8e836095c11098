"""The table of depth rows: an instrument's ten best levels a side, at each change of its book.

Shapes: N rows, L levels (10).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_code.market.order import in_order
from model_code.market.schema import require, stamps

LEVELS = 10
PARTS = ("bid_price", "bid_size", "ask_price", "ask_size")
COLUMNS = tuple(f"{part}_{level}" for part in PARTS for level in range(LEVELS))
KINDS: dict[str, pa.DataType] = {
    "timestamp": pa.timestamp("ns", "UTC"),
    **dict.fromkeys(COLUMNS, pa.float64()),
}
Floats = npt.NDArray[np.float64]


class DepthRows(NamedTuple):
    """Rows of one instrument-day, in time order, and what was left out, in sentences.

    Attributes:
        timestamp_N: when the receiver had this book, ns UTC; never goes back.
        levels: price and size of bids and asks in the order of `PARTS`, (N, 10) each, the best
            level first; NaN where the book has fewer.
        notes: what the reader should know.
    """

    timestamp_N: npt.NDArray[np.int64]
    levels: tuple[Floats, Floats, Floats, Floats]
    notes: tuple[str, ...] = ()


def usable(
    bid_NL: Floats, bid_size_NL: Floats, ask_NL: Floats, ask_size_NL: Floats
) -> npt.NDArray[np.bool_]:
    """Whether each row is a book, (N,): both sides there, uncrossed, sorted, sizes positive."""
    with np.errstate(invalid="ignore"):
        found: npt.NDArray[np.bool_] = (
            _side(-bid_NL, bid_size_NL) & _side(ask_NL, ask_size_NL) & (bid_NL[:, 0] < ask_NL[:, 0])
        )
    return found & (bid_NL[:, 0] > 0)


def _side(key_NL: Floats, size_NL: Floats) -> npt.NDArray[np.bool_]:
    """Keys ascend from the best one on, without holes; NaN at the end is a missing level."""
    present_NL = ~np.isnan(key_NL)
    whole_N = present_NL[:, 0] & ~(present_NL[:, 1:] & ~present_NL[:, :-1]).any(axis=1)
    ascends_N = ~(present_NL[:, 1:] & ~(key_NL[:, 1:] > key_NL[:, :-1])).any(axis=1)
    sized_N = (~present_NL | ((size_NL > 0) & np.isfinite(size_NL))).all(axis=1)
    finite_N = ~np.isinf(key_NL).any(axis=1)
    found: npt.NDArray[np.bool_] = whole_N & ascends_N & sized_N & finite_N
    return found


def read_rows(table: pa.Table, where: str) -> DepthRows:
    """The rows of a table with the columns `KINDS`; null is a missing level.

    Rows that are no book, or that their neighbours' clock contradicts, are left out and counted.

    Raises:
        SchemaError: a column is missing or has the wrong type.
        DataError: a time stamp is null.
    """
    table = require(table, KINDS, where)
    time_N = stamps(table, where)
    columns = [table[name].fill_null(np.nan).to_numpy() for name in COLUMNS]
    return clean(time_N, np.stack(columns, axis=1).reshape(len(time_N), len(PARTS), LEVELS))


def clean(
    time_N: npt.NDArray[np.int64], value_NPL: Floats, notes: tuple[str, ...] = ()
) -> DepthRows:
    """Leave out, and count, rows that are no book or whose clock their neighbours contradict."""
    book_N = usable(*(value_NPL[:, part] for part in range(len(PARTS))))
    kept = np.flatnonzero(book_N)[in_order(time_N[book_N])]
    counts = (
        (int((~book_N).sum()), "depth rows left out, not a book"),
        (int(book_N.sum()) - len(kept), "depth rows left out, out of time order"),
    )
    notes += tuple(f"{text}: {count:,}" for count, text in counts if count)
    bid, bid_size, ask, ask_size = (
        np.ascontiguousarray(value_NPL[kept, part]) for part in range(len(PARTS))
    )
    return DepthRows(time_N[kept], (bid, bid_size, ask, ask_size), notes)


def to_table(rows: DepthRows) -> pa.Table:
    """The table that `read_rows` reads, as the family `depth` of a store holds it."""
    columns = {
        f"{part}_{level}": values_NL[:, level]
        for part, values_NL in zip(PARTS, rows.levels, strict=True)
        for level in range(LEVELS)
    }
    stamp = pa.array(rows.timestamp_N).cast(KINDS["timestamp"])
    return pa.table(
        {"timestamp": stamp}
        | {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
    )
