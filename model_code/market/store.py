"""The protocol of market stores, and the choice of the reader by the content at the URI."""

from pathlib import Path
from typing import ClassVar, Protocol

import fsspec
import pyarrow as pa

from model_code.errors import MarketError
from model_code.market.binance_archive import BinanceArchiveStore
from model_code.market.desk_csv import DeskCsvStore
from model_code.market.hive import HiveStore
from model_code.market.schema import InstrumentDay
from model_code.market.simulated import SimulatedStore

LAYOUTS = """supported layouts:
    hive             <root>/quotes/symbol=<S>/date=<D>.parquet (and trades/...)
    desk-csv         a .csv file, or a folder of <SYMBOL>.csv or <SYMBOL>_<date>.csv
    binance-archive  a folder of <SYMBOL>-bookTicker-<D>.zip (and -trades- or -aggTrades-)
    simulated        simulated: or simulated:?seed=7&instruments=2&days=2&minutes=6"""


class MarketStore(Protocol):
    """Ticks by instrument and day.

    Attributes:
        KIND: the reader's name.
        uri: what was opened.
        simulated: whether the ticks are simulated; such results are labelled, never promoted.
    """

    KIND: ClassVar[str]
    uri: str
    simulated: bool

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day, sorted by (date, symbol)."""
        ...

    def read(self, day: InstrumentDay) -> pa.Table:
        """One instrument-day as TICKS, rows in source order."""
        ...

    def digest(self, day: InstrumentDay) -> str:
        """sha256 that changes whenever the result of `read` could change."""
        ...


def open_market(uri: str) -> MarketStore:
    """Open the market store at `uri`; its content decides the reader.

    Args:
        uri: a path, any fsspec URI (file://, s3://, memory://...) or `simulated:[?key=value&...]`.

    Raises:
        MarketError: the URI cannot be read, or its layout is not supported.
        ConfigError: a `simulated:` URI with an unknown or invalid parameter.
    """
    if uri.split(":", 1)[0] == "simulated":
        return SimulatedStore(uri)
    try:
        fs, root = fsspec.core.url_to_fs(str(Path(uri).expanduser()) if "://" not in uri else uri)
        found = [root] if fs.isfile(root) else fs.ls(root, detail=False)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error) or type(error).__name__
        raise MarketError(
            f"cannot open the market store: {reason}",
            where=uri,
            remedy=f"check --data or TICKLINE_MARKET (path, permission, protocol's package);\n"
            f"    {LAYOUTS}",
        ) from error
    except Exception as error:  # cloud file systems raise their SDK's own types
        raise MarketError(
            f"cannot open the market store: {type(error).__name__}: {error}",
            where=uri,
            remedy="check the URI and the credentials of that file system",
        ) from error
    if any(path.rstrip("/").endswith("/quotes") for path in found):
        return HiveStore(uri, fs, root)
    if BinanceArchiveStore.holds(fs, root):
        return BinanceArchiveStore(uri, fs, root)
    if DeskCsvStore.holds(fs, root):
        return DeskCsvStore(uri, fs, root)
    raise MarketError(
        f"no market layout found; looked for quotes/, *.csv and *-bookTicker-*.zip, "
        f"found {len(found)} entries",
        where=uri,
        remedy=LAYOUTS,
    )
