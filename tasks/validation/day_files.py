"""The files of a validated day, written chunk by chunk.

The bytes do not depend on the size of the chunks: rows wait until a row group is full.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_ROWS = 1 << 18  # of a row group
# dictionaries of prices cost half the time of writing and save nothing
FORMAT: dict[str, Any] = {
    "compression": "lz4",
    "use_dictionary": ["symbol", "trade_count", "reason"],
    "column_encoding": {"timestamp": "DELTA_BINARY_PACKED"},
    "write_statistics": ["timestamp"],
}


class DayFile:
    """Rows that go to one Parquet file.

    Attributes:
        rows: written so far.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.rows = path, 0
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._count = 0

    def write(self, table: pa.Table) -> None:
        """Take the next rows."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, **FORMAT)
        self.rows += table.num_rows
        while self._count + table.num_rows >= GROUP_ROWS:
            head = GROUP_ROWS - self._count
            self._waiting.append(table.slice(0, head))
            table = table.slice(head)
            self._flush()
        if table.num_rows:
            self._waiting.append(table)
            self._count += table.num_rows

    def _flush(self) -> None:
        if self._writer is not None and self._waiting:
            group = pa.concat_tables(self._waiting).combine_chunks()
            self._writer.write_table(group, row_group_size=GROUP_ROWS)
        self._waiting, self._count = [], 0

    def close(self) -> None:
        """Write what waits, and the footer."""
        self._flush()
        if self._writer is not None:
            self._writer.close()


@contextmanager
def day_file(path: Path) -> Iterator[DayFile]:
    """A file to write to; it is complete after the block."""
    file = DayFile(path)
    try:
        yield file
    finally:
        file.close()
