"""Rows that are read in chunks, as often as needed."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

CHUNK_ROWS = 1 << 18


class Rows(Protocol):
    """Rows of one kind of one instrument-day, in source order.

    Attributes:
        schema: of every chunk.
    """

    @property
    def schema(self) -> pa.Schema:
        """Of every chunk."""
        ...

    def chunks(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows from the first on, in at least one chunk, which may be empty.

        Args:
            names: of the columns to read; a name that is not there is left out. None: all.
        """
        ...


class TableRows:
    """The rows of a table in memory.

    Args:
        table: the rows.
        size: rows in a chunk; None: all in one.
    """

    def __init__(self, table: pa.Table, size: int | None = None) -> None:
        self._table, self._size = table, size or max(table.num_rows, 1)

    @property
    def schema(self) -> pa.Schema:
        """Of every chunk."""
        return self._table.schema

    def chunks(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows from the first on, in at least one chunk."""
        chosen = self._table if names is None else self._table.select(present(self.schema, names))
        for start in range(0, max(chosen.num_rows, 1), self._size):
            yield chosen.slice(start, self._size)


def present(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Those of the names that the schema has."""
    return [name for name in names if name in schema.names]


def whole(rows: Rows) -> pa.Table:
    """All rows as one table."""
    return pa.concat_tables(rows.chunks())
