"""Write the instrument-days of another format as Hive-partitioned Parquet, one after the other.

Quotes and trades are written as the source has them, faulty rows too: validation quarantines them
by its own rules. A day's files hold the sha256 of its source, so a second run writes only what has
changed. Each file is complete or absent; a day exists once its quotes do.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import atomic_file, hash_bytes
from model_code.errors import ConfigError, MarketError, StorageError, TicklineError
from model_code.market import quality
from model_code.market.profiles import limits, presumed
from model_code.market.readers.chunked import KINDS, ChunkedStore, Kind, Tables
from model_code.market.readers.files import STATEMENT
from model_code.market.schema import InstrumentDay
from model_code.settings import ValidationSpec

VERSION = b"1"  # of what is written; a change writes every day again
_SOURCE = b"tickline.source_sha256"
_TRADED = b"tickline.traded"


class ImportedDay(BaseModel):
    """What became of one instrument-day.

    Attributes:
        day: date and symbol.
        quotes, trades: rows written.
        left_out: rows that the reader left out, by reason; unknown for an unchanged day, as are
            `faults`, `quarantined`, `trade_faults` and `notes`.
        faults: rows written that break a validation rule, by reason; quarantined on use.
        quarantined: rows with one fault or more.
        trade_faults: trades not used: repeated ids, size 0, or bad.
        notes: what else the reader remarks.
        unchanged: the files were there already.
        refused: why the day was not written; "": it was.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    date: str
    symbol: str
    quotes: int = 0
    trades: int = 0
    left_out: dict[str, int] = {}
    faults: dict[str, int] = {}
    quarantined: int = 0
    trade_faults: int = 0
    notes: tuple[str, ...] = ()
    unchanged: bool = False
    refused: str = ""


def import_days(
    store: ChunkedStore, folder: Path, *, before: Callable[[InstrumentDay], None] | None = None
) -> Iterator[ImportedDay]:
    """Write every instrument-day below `folder`; yield what became of each.

    A day that cannot be read is refused; the others are still written.

    Args:
        store: to read.
        folder: root of the Hive store; created if missing.
        before: called with each day before it is read.

    Raises:
        ConfigError: `folder` is inside the store.
        MarketError, SchemaError, DataError: the store's catalogue cannot be read.
        StorageError: the disk is full, or `folder` is not writable.
    """
    if store.contains(folder):
        raise ConfigError(
            "the folder to write is inside the one to read",
            where=str(folder),
            remedy="write to a folder outside it",
        )
    days = store.catalog()
    _state(store, folder)
    for day in days:
        if before:
            before(day)
        try:
            yield _import_day(store, day, folder)
        except StorageError:
            raise
        except TicklineError as error:
            yield ImportedDay(date=str(day.date), symbol=day.symbol, refused=str(error))


def _import_day(store: ChunkedStore, day: InstrumentDay, folder: Path) -> ImportedDay:
    source = hash_bytes(VERSION + store.digest(day).encode()).encode()
    paths = {kind: hive_path(folder, kind, day) for kind in KINDS}
    found = _require_ours(paths["quotes"])
    if found.get(_SOURCE) == source and found[_TRADED] == _flag(paths["trades"].is_file()):
        return ImportedDay(
            date=str(day.date),
            symbol=day.symbol,
            quotes=_rows(paths["quotes"]),
            trades=_rows(paths["trades"]),
            unchanged=True,
        )
    _require_ours(paths["trades"])
    tables = store.tables(day)
    judged = _judged(store, day, tables)  # what cannot be joined is not written
    metadata = {_SOURCE: source, _TRADED: _flag(tables.trades is not None)}
    if tables.trades is not None:
        _write(tables.trades, paths["trades"], metadata)
    _write(tables.quotes, paths["quotes"], metadata)
    if tables.trades is None:
        paths["trades"].unlink(missing_ok=True)
    return judged


def _flag(traded: bool) -> bytes:
    return str(traded).encode()


def _rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows) if path.is_file() else 0


def _judged(store: ChunkedStore, day: InstrumentDay, tables: Tables) -> ImportedDay:
    spec = ValidationSpec()
    loaded = tables.joined(day.symbol, spec.trade_band_bps)
    sized = loaded.ticks["bid_size"].null_count < loaded.ticks.num_rows
    profile = store.statement.profile or presumed(sized=sized, traded=tables.trades is not None)
    _, quarantined, faults = quality.quarantine(loaded.ticks, day, limits(spec, profile))
    trades = loaded.notes.trades
    return ImportedDay(
        date=str(day.date),
        symbol=day.symbol,
        quotes=tables.quotes.num_rows,
        trades=tables.trades.num_rows if tables.trades is not None else 0,
        left_out=dict(tables.left_out),
        faults=faults,
        quarantined=quarantined.num_rows,
        trade_faults=trades.bad + trades.empty + trades.repeated if trades else 0,
        notes=loaded.notes.warnings,
    )


def hive_path(folder: Path, kind: Kind, day: InstrumentDay) -> Path:
    """Where the Hive layout has an instrument-day; a symbol may hold "/"."""
    return folder / kind / f"symbol={quote(day.symbol, safe='')}" / f"date={day.date}.parquet"


def _write(table: pa.Table, path: Path, metadata: dict[bytes, bytes]) -> None:
    with atomic_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def _require_ours(path: Path) -> dict[bytes, bytes]:
    """What a day's file says of its source; empty without a file.

    Raises:
        MarketError: the file is damaged, or was not written by an import.
    """
    if not path.exists():
        return {}
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MarketError(
            f"the file that is there is not readable as Parquet: {error}",
            where=str(path),
            remedy="delete it and import again",
        ) from error
    if _SOURCE not in metadata:
        raise MarketError(
            "the file that is there was not written by an import",
            where=str(path),
            remedy="import into another folder, or move the file away",
        )
    return {key: metadata[key] for key in (_SOURCE, _TRADED) if key in metadata}


def _state(store: ChunkedStore, folder: Path) -> None:
    """Write the profile that the store states, unless the folder states something."""
    path = folder / STATEMENT
    if store.statement.profile and not path.exists():
        with atomic_file(path) as temporary:
            temporary.write_text(f"profile: {store.statement.profile}\n")
