"""Records of a Databento DBN file (`.dbn`, `.dbn.zst`) as arrays, with the library's own layouts.

A file is `DBN`, a version, metadata, then records. Each record begins with its length in words of
four bytes and its type. Layouts: `databento_dbn`'s records; their first fields have been the same
in every version of DBN. Source: databento.com/docs/standards-and-conventions, "Databento Binary
Encoding".
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import databento_dbn as dbn
import fsspec
import numpy as np
import numpy.typing as npt

from model_code.errors import MarketError, SchemaError
from model_code.market.readers.files import read_blocks

_PREFIX = 8  # "DBN", version, length of the metadata
_HEADER = 16
_MAPPING = int(dbn.RType.SYMBOL_MAPPING)
_AGAIN = "fetch the file again; it is incomplete"
# by record type; the type 1 is MBP-1 and, in most files, TBBO
LAYOUTS: dict[int, list[tuple[str, str]]] = {
    int(dbn.RType.MBP_1): dbn.MBP1Msg._dtypes,
    int(dbn.RType.TBBO): dbn.MBP1Msg._dtypes,
    int(dbn.RType.MBP_0): dbn.TradeMsg._dtypes,
    int(dbn.RType.BBO_1S): dbn.BBOMsg._dtypes,
    int(dbn.RType.BBO_1M): dbn.BBOMsg._dtypes,
}

Records = npt.NDArray[Any]
Interval = tuple[dt.date, dt.date, str]


@dataclass
class Symbols:
    """Which symbol an instrument id had on a date.

    Attributes:
        intervals: first date, the date after the last, symbol; by instrument id.
        live: symbols that the stream itself announced, by instrument id.
    """

    intervals: dict[int, list[Interval]] = field(default_factory=dict)
    live: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, metadata: dbn.Metadata) -> "Symbols":
        """The mappings of a file's metadata."""
        found = cls()
        for name, intervals in metadata.mappings.items():
            for interval in intervals:
                number, symbol = interval["symbol"], name
                if str(metadata.stype_out) != str(dbn.SType.INSTRUMENT_ID):
                    number, symbol = name, interval["symbol"]
                if number.isdigit() and symbol:
                    found.intervals.setdefault(int(number), []).append(
                        (interval["start_date"], interval["end_date"], symbol)
                    )
        return found

    def symbol(self, instrument: int, date: dt.date) -> str | None:
        """The symbol; None if there is none on that date."""
        for start, end, symbol in self.intervals.get(instrument, []):
            if start <= date < end:
                return symbol
        return self.live.get(instrument)


@dataclass
class DbnFile:
    """A file's metadata and its records.

    Attributes:
        dataset: e.g. `XNAS.ITCH`.
        schema: e.g. `mbp-1`; None for a live stream, which may hold several.
        symbols: completed by the stream while the records are read.
    """

    dataset: str
    schema: str | None
    symbols: Symbols
    _version: int
    _start: bytes
    _rest: Iterator[bytes]
    _where: str

    def records(self) -> Iterator[tuple[int, Records]]:
        """Record type and rows of one type, in the order of the file.

        Raises:
            MarketError: the file is truncated or damaged.
            SchemaError: a record is shorter than its layout.
        """
        data = self._start
        for block in self._rest:
            data += block
            used = 0
            for kind, size, start, end in runs(data, self._where):
                used = end
                if kind in LAYOUTS:
                    yield kind, self._rows(kind, data[start:end], size)
                elif kind == _MAPPING:
                    self._announced(data[start:end])
            data = data[used:]
        if data:
            raise MarketError(
                f"truncated: the last record is incomplete, {len(data)} bytes of it are there",
                where=self._where,
                remedy=_AGAIN,
            )

    def _rows(self, kind: int, data: bytes, size: int) -> Records:
        layout = np.dtype(LAYOUTS[kind])
        if size < layout.itemsize:
            raise SchemaError(
                f"records of type {kind} have {size} bytes, expected {layout.itemsize}",
                where=self._where,
                remedy="convert the file to the current version: dbn --help",
            )
        # a live stream may append the time of sending to each record
        padded = np.dtype([("record", layout), ("more", f"V{size - layout.itemsize}")])
        return np.frombuffer(data, padded)["record"]

    def _announced(self, data: bytes) -> None:
        """Take the symbols that a live stream announces."""
        decoder = dbn.DBNDecoder(has_metadata=False, input_version=self._version)
        decoder.write(data)
        for record in decoder.decode():
            self.symbols.live[record.instrument_id] = record.stype_out_symbol  # type: ignore[union-attr]


def open_dbn(fs: fsspec.AbstractFileSystem, path: str) -> DbnFile:
    """Read a file's metadata; its records follow from `records`.

    Raises:
        MarketError: the file is empty, truncated, damaged or not DBN.
    """
    rest = read_blocks(fs, path)
    data = b""
    for block in rest:
        data += block
        if len(data) >= _PREFIX and len(data) >= _end_of_metadata(data):
            break
    try:
        if not data:
            raise MarketError("the file is empty", where=path, remedy=_AGAIN)
        end = _end_of_metadata(data)
        metadata = dbn.Metadata.decode(data[:end])
    except dbn.DBNError as error:
        raise MarketError(
            f"not readable as DBN, truncated or another format: {error}",
            where=path,
            remedy="fetch the file again with encoding dbn (compression none or zstd)",
        ) from error
    schema = None if metadata.schema is None else str(metadata.schema)
    return DbnFile(
        dataset=metadata.dataset,
        schema=schema,
        symbols=Symbols.of(metadata),
        _version=metadata.version,
        _start=data[end:],
        _rest=_with_empty_first(rest),
        _where=path,
    )


def _with_empty_first(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """A block of nothing, then the others: what was read with the metadata counts as a block."""
    yield b""
    yield from blocks


def _end_of_metadata(data: bytes) -> int:
    return _PREFIX + int.from_bytes(data[4:_PREFIX], "little")


def runs(data: bytes, where: str) -> Iterator[tuple[int, int, int, int]]:
    """Record type, size, start and end of each run of whole records of one type and size.

    Raises:
        MarketError: a record's length is impossible.
    """
    view = np.frombuffer(data, np.uint8)
    start = 0
    while start + 2 <= len(data):
        size, kind = 4 * data[start], data[start + 1]
        if size < _HEADER:
            raise MarketError(
                f"damaged: a record states a length of {size} bytes",
                where=where,
                remedy="fetch the file again",
            )
        most = (len(data) - start) // size
        if not most:
            return
        end = start + _alike(view[start : start + most * size].reshape(most, size)) * size
        yield kind, size, start, end
        start = end


def _alike(rows: npt.NDArray[np.uint8]) -> int:
    """How many of the first rows have the length and the type of the first one."""
    done, step = 1, 64
    while done < len(rows):
        same = (rows[done : done + step, :2] == rows[0, :2]).all(axis=1)
        if not same.all():
            return done + int(same.argmin())
        done += len(same)
        step *= 4
    return done
