"""Rows that are parsed once and read again from a temporary file.

The file is unnamed, in the system's folder for temporary files (`TMPDIR`); the system removes it
with the process.
"""

import io
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import polars as pl
import pyarrow as pa

from model_code.artifacts import storage_error
from model_code.market.stream.rows import CHUNK_ROWS, present


class SpilledRows:
    """Rows of a day in a temporary file, about 8 bytes for each number.

    Attributes:
        rows: how many there are.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._places: list[tuple[int, int]] = []
        self._empty: pl.DataFrame | None = None
        self._left_out: frozenset[str] = frozenset()

    def add(self, frame: pl.DataFrame) -> None:
        """Write the next rows.

        Raises:
            StorageError: the folder for temporary files is full.
        """
        none = frame.clear()
        self._empty = (
            none if self._empty is None else pl.concat([self._empty, none], how="vertical_relaxed")
        )
        try:
            for part in frame.iter_slices(CHUNK_ROWS):
                buffer = io.BytesIO()
                part.write_ipc_stream(buffer)
                start = self._file.seek(0, os.SEEK_END)
                self._places.append((start, self._file.write(buffer.getbuffer())))
            self._file.flush()
        except OSError as error:
            raise storage_error(error, Path(tempfile.gettempdir()) / "rows of a day") from error
        self.rows += len(frame)

    def leave_out(self, name: str) -> None:
        """Read the rows without a column."""
        self._left_out |= {name}

    @property
    def schema(self) -> pa.Schema:
        """Of every chunk."""
        return self._none.to_arrow().schema

    def chunks(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows from the first on, in at least one chunk."""
        none = self._none
        none = none if names is None else none.select(present(self.schema, names))
        for start, size in self._places:
            block = os.pread(self._file.fileno(), size, start)
            frame = pl.read_ipc_stream(io.BytesIO(block), columns=none.columns)
            yield frame.select(none.columns).cast(none.schema).to_arrow()
        if not self._places:
            yield none.to_arrow()

    @property
    def _none(self) -> pl.DataFrame:
        none = pl.DataFrame() if self._empty is None else self._empty
        return none.drop(self._left_out)
