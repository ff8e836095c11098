"""Rows of files with several days, split by day, so that a file is parsed once for all its days.

The rows are kept in one unnamed file in the system's folder for temporary files (`TMPDIR`), which
the system removes with the process. At most one block of a file is in memory.
"""

import datetime as dt
import io
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import IO, NamedTuple

import polars as pl

from model_code.artifacts import storage_error


class _Place(NamedTuple):
    start: int
    size: int


class DayParts:
    """The rows of each day of each file; safe with several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._places: dict[str, dict[dt.date, list[_Place]]] = {}

    def rows(
        self, path: str, date: dt.date, read: Callable[[], Iterable[pl.DataFrame]]
    ) -> list[pl.DataFrame]:
        """A day's rows in the order of the file, as parts; empty if the file has none.

        Args:
            path: of the file.
            date: UTC date of the column `timestamp`.
            read: gives the file's rows in parts; called once for each path.

        Raises:
            StorageError: the folder for temporary files is full.
        """
        with self._lock:
            if path not in self._places:
                try:
                    self._places[path] = self._split(read())
                except OSError as error:
                    where = Path(tempfile.gettempdir()) / "rows by day"
                    raise storage_error(error, where) from error
            return [self._read(place) for place in self._places[path].get(date, ())]

    def _split(self, frames: Iterable[pl.DataFrame]) -> dict[dt.date, list[_Place]]:
        places: dict[dt.date, list[_Place]] = {}
        for frame in frames:
            days = frame.group_by(pl.col("timestamp").dt.date(), maintain_order=True)
            for (date,), rows in days:
                places.setdefault(date, []).append(self._write(rows))
        self._file.flush()
        return places

    @cached_property
    def _file(self) -> IO[bytes]:
        file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, file.close)
        return file

    def _write(self, rows: pl.DataFrame) -> _Place:
        buffer = io.BytesIO()
        rows.write_ipc_stream(buffer)
        return _Place(self._file.seek(0, os.SEEK_END), self._file.write(buffer.getbuffer()))

    def _read(self, place: _Place) -> pl.DataFrame:
        return pl.read_ipc_stream(
            io.BytesIO(os.pread(self._file.fileno(), place.size, place.start))
        )
