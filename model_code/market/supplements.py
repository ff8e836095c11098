"""What a store may have beside ticks: depth rows, and series from outside the instruments.

Series are indicators, macro factors, other markets' moves: `<root>/exogenous/<name>.parquet`
has `timestamp`, when the receiver could know the row, and one or more columns of numbers. A series
is named `<name>.<column>`. A null is no new value.

Shapes: M rows of a series.
"""

import re
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_code.errors import DataError
from model_code.market.level2.rows import DepthRows
from model_code.market.schema import InstrumentDay, require, stamps

FOLDER = "exogenous"
_TABLE = re.compile(rf"^{FOLDER}/(?P<name>[^./]+)\.parquet$")


class Series(NamedTuple):
    """Values in time order, all finite."""

    timestamp_M: npt.NDArray[np.int64]
    value_M: npt.NDArray[np.float64]


class SupplementStore(Protocol):
    """A market store as feature sets beyond ticks need it.

    Attributes:
        uri: what was opened.
    """

    uri: str

    def depth(self, day: InstrumentDay) -> DepthRows | None:
        """The instrument-day's depth rows; None if the store has none."""
        ...

    def exogenous(self, name: str) -> Series:
        """The exogenous series `<table>.<column>`."""
        ...

    def supplements(self, day: InstrumentDay) -> dict[str, str]:
        """sha256 of what there is, by name: `depth` and `exogenous/<table>`."""
        ...


def table_name(below: str) -> str | None:
    """The table's name of a path below the store's root; None if it is no such table."""
    found = _TABLE.match(below)
    return found["name"] if found else None


def read_series(table: pa.Table, column: str, where: str) -> Series:
    """One column as a series.

    Raises:
        SchemaError: a column is missing or not of numbers.
        DataError: a time stamp is null or goes back, or a value is not finite.
    """
    kinds = {"timestamp": pa.timestamp("ns", "UTC"), column: pa.float64()}
    table = require(table, kinds, where)
    time_M = stamps(table, where)
    back = np.flatnonzero(np.diff(time_M) < 0)
    if len(back):
        raise DataError(
            "the time stamps go back",
            where=f"{where}, row {back[0] + 2}, column 'timestamp'",
            remedy="sort the table by timestamp",
        )
    given_M = ~np.asarray(table[column].is_null().to_numpy())
    value_M = table[column].fill_null(0.0).to_numpy()
    bad = np.flatnonzero(~np.isfinite(value_M))
    if len(bad):
        raise DataError(
            f"the value {value_M[bad[0]]} is not finite",
            where=f"{where}, row {bad[0] + 1}, column {column!r}",
            remedy="write null where there is no new value",
        )
    return Series(time_M[given_M], np.ascontiguousarray(value_M[given_M]))
