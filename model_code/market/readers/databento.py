"""Databento's DBN files (`.dbn`, `.dbn.zst`), at any depth below a folder or one file.

Schemas: `mbp-1` and `tbbo` (quotes and trades), `bbo-1s` and `bbo-1m` (quotes) with `trades`. Of
several files of a day, the finest is used. Symbols include the dataset's venue: `AAPL.XNAS`.

A row's time is `ts_recv`, when the capture server received the record: a receiver could know it
then, records are in its order, and the symbol mappings are by its date. `ts_event`, the matching
engine's time, is earlier, and would show a row before anybody could have it.

An MBP-1 record with the action T is a trade and no quote: its book is the one before the trade. The
same holds for the book of a TBBO record, whose trade therefore counts in the next row. Side A is a
seller's aggression, B a buyer's, N unknown. Prices are int64 in 1e-9; an undefined one is null. A
record is left out and counted if its flags say that its `ts_recv` or its book may be wrong.
"""

import datetime as dt
from collections.abc import Iterator
from typing import ClassVar

import databento_dbn as dbn
import fsspec
import numpy as np
import numpy.typing as npt
import polars as pl

from model_code.errors import DataError
from model_code.market.readers.chunked import POSITION, Chunk, ChunkedStore
from model_code.market.readers.clocks import from_epoch
from model_code.market.readers.dbn_records import DbnFile, Records, open_dbn
from model_code.market.readers.files import walk

RANKS = {"mbp-1": 0, "tbbo": 1, "bbo-1s": 2, "bbo-1m": 3, "trades": 4}
_SUFFIXES = (".dbn", ".dbn.zst")
_BY_TYPE = {
    int(dbn.RType.MBP_1): "mbp-1",
    int(dbn.RType.TBBO): "tbbo",
    int(dbn.RType.MBP_0): "trades",
    int(dbn.RType.BBO_1S): "bbo-1s",
    int(dbn.RType.BBO_1M): "bbo-1m",
}
BAD_TIME = "ts_recv is flagged as inaccurate"
BAD_BOOK = "the book is flagged as possibly wrong"


class DatabentoStore(ChunkedStore):
    """A folder of DBN files."""

    KIND: ClassVar[str] = "databento"
    LAYOUT = "*.dbn or *.dbn.zst of the schemas mbp-1, tbbo, or bbo-1s (bbo-1m) and trades"

    @staticmethod
    def holds(fs: fsspec.AbstractFileSystem, root: str) -> bool:
        """Whether a DBN file is below `root`."""
        return any(path.endswith(_SUFFIXES) for path in walk(fs, root))

    def _refusal(self, path: str) -> str | None:
        if not path.endswith(_SUFFIXES):
            return "not a .dbn or .dbn.zst file"
        schema = open_dbn(self._fs, path).schema
        if schema is not None and schema not in RANKS:
            return f"schema {schema}; read are {', '.join(RANKS)}"
        return None

    def _chunks(self, path: str) -> Iterator[Chunk]:
        file = open_dbn(self._fs, path)
        row, publishers = 0, dict[int, int]()
        for kind, records in file.records():
            schema = "tbbo" if file.schema == "tbbo" else _BY_TYPE[kind]
            time_ns = _times(records, path, row)
            _require_one_publisher(records, publishers, path)
            rows = pl.DataFrame(
                {
                    "symbol": _symbols(records["instrument_id"], time_ns, file, path),
                    "timestamp": time_ns,
                    POSITION: 2 * np.arange(row, row + len(records)),
                }
            )
            row += len(records)
            yield from _split(records, rows, schema)


def _split(records: Records, rows: pl.DataFrame, schema: str) -> Iterator[Chunk]:
    """Quotes and trades of some records, and what their flags leave out."""
    traded = (
        records["action"] == b"T"
        if "action" in (records.dtype.names or ())
        else np.zeros(len(records), np.bool_)
    )
    quoted = ~traded if schema == "mbp-1" else np.full(len(records), schema != "trades")
    late = (records["flags"] & dbn.F_BAD_TS_RECV) != 0
    doubtful = ~late & ((records["flags"] & dbn.F_MAYBE_BAD_BOOK) != 0)
    rank = RANKS[schema]
    if quoted.any():
        quotes = rows.with_columns(
            bid_price=_prices(records["bid_px_00"]),
            ask_price=_prices(records["ask_px_00"]),
            bid_size=pl.Series(records["bid_sz_00"]).cast(pl.Float64),
            ask_size=pl.Series(records["ask_sz_00"]).cast(pl.Float64),
        )
        yield Chunk("quotes", quotes.filter(quoted & ~late & ~doubtful), rank=rank)
        yield Chunk("quotes", quotes.filter(quoted & late), BAD_TIME, rank)
        yield Chunk("quotes", quotes.filter(quoted & doubtful), BAD_BOOK, rank)
    if traded.any():
        side = pl.Series(records["side"].astype("U1"))
        trades = rows.with_columns(
            pl.col(POSITION) + 1,  # after the book of its own record
            price=_prices(records["price"]),
            size=pl.Series(records["size"]).cast(pl.Float64),
            buyer_is_maker=side.replace_strict(
                {"A": True, "B": False}, default=None, return_dtype=pl.Boolean
            ),
        )
        yield Chunk("trades", trades.filter(traded & ~late), rank=rank)
        yield Chunk("trades", trades.filter(traded & late), BAD_TIME, rank)


def _prices(fixed: npt.NDArray[np.int64]) -> pl.Series:
    known = fixed != dbn.UNDEF_PRICE
    prices = pl.Series(fixed / dbn.FIXED_PRICE_SCALE)
    return pl.select(pl.when(pl.Series(known)).then(prices)).to_series()


def _times(records: Records, path: str, row: int) -> npt.NDArray[np.int64]:
    received = records["ts_recv"]
    undefined = received == dbn.UNDEF_TIMESTAMP
    if undefined.any():
        raise DataError(
            "the record has no ts_recv",
            where=f"{path}, record {row + int(undefined.argmax()) + 1:,}",
            remedy="fetch the file again",
        )
    return from_epoch(received.astype(np.int64), "ns", f"{path}, ts_recv", row + 1)


def _symbols(
    instruments: npt.NDArray[np.uint32], time_ns: npt.NDArray[np.int64], file: DbnFile, path: str
) -> pl.Series:
    keys = pl.DataFrame({"instrument": instruments, "timestamp": time_ns}).select(
        "instrument", date=pl.col("timestamp").cast(pl.Datetime("ns")).dt.date()
    )
    known = keys.unique(maintain_order=True)
    venue = file.dataset.partition(".")[0]
    names = [_named(file, instrument, date, venue, path) for instrument, date in known.iter_rows()]
    return keys.join(
        known.with_columns(symbol=pl.Series(names, dtype=pl.String)),
        on=["instrument", "date"],
        how="left",
        maintain_order="left",
    )["symbol"]


def _named(file: DbnFile, instrument: int, date: dt.date, venue: str, path: str) -> str:
    symbol = file.symbols.symbol(instrument, date)
    if symbol is None:
        raise DataError(
            f"instrument id {instrument} has no symbol on {date} in the file's metadata",
            where=path,
            remedy="request the file again with stype_out=instrument_id, so that it holds the "
            "symbol mappings",
        )
    return f"{symbol}.{venue}"


def _require_one_publisher(records: Records, seen: dict[int, int], path: str) -> None:
    """Raise where one instrument has the records of two venues, each with its own book."""
    pairs = pl.DataFrame({n: records[n] for n in ("instrument_id", "publisher_id")}).unique()
    for instrument, publisher in pairs.sort("instrument_id", "publisher_id").iter_rows():
        first = seen.setdefault(instrument, publisher)
        if first != publisher:
            raise DataError(
                f"instrument id {instrument} has records of the publishers {first} and "
                f"{publisher}: each venue has its own book",
                where=path,
                remedy="request the dataset of one venue, or a consolidated one",
            )
