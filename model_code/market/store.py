"""The protocol of market stores, and the choice of the reader by the content at the URI."""

import functools
import os
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, Protocol

import fsspec
import pyarrow as pa
from obstore.fsspec import register

from model_code.errors import MarketChoiceError, MarketError, first_line
from model_code.market.notes import Loaded
from model_code.market.readers.base import FileStore
from model_code.market.readers.binance_archive import BinanceArchiveStore
from model_code.market.readers.binance_frames import BinanceFramesStore
from model_code.market.readers.databento import DatabentoStore
from model_code.market.readers.desk_csv import DeskCsvStore
from model_code.market.readers.files import (
    HashFile,
    PassedOver,
    hash_file,
    relative,
    walk,
    walked_once,
)
from model_code.market.readers.hive import HiveStore
from model_code.market.readers.lobster import LobsterStore
from model_code.market.readers.mapped_parquet import MappedParquetStore
from model_code.market.readers.named import local, split
from model_code.market.readers.statement import Statement
from model_code.market.readers.tardis import TardisStore
from model_code.market.schema import InstrumentDay
from model_code.market.simulated import SimulatedStore
from model_code.market.stream.ticks import TickStream
from model_code.market.supplements import SupplementStore

LAYOUTS = """supported layouts (docs/market-formats.md):
    hive             <root>/quotes/symbol=<S>/date=<D>.parquet or date=<D>/*.parquet
                     (and trades/..., depth/...)
    desk-csv         a .csv file, or a folder of <SYMBOL>.csv or <SYMBOL>_<date>.csv
                     (also .csv.gz, .csv.zst)
    binance-archive  a folder of <SYMBOL>-bookTicker-<D>.zip (and -trades- or -aggTrades-)
    binance-frames   a folder of <spot|usdm|cm>_<symbol>_<YYYYMMDD>.gz: recorded WebSocket frames
    databento        *.dbn or *.dbn.zst: mbp-1, tbbo, bbo-1s, bbo-1m, trades
    tardis           <exchange>_<quotes or trades>_<D>_<SYMBOL>.csv.gz
    lobster          <TICKER>_<D>_<start>_<end>_message_<n>.csv and ..._orderbook_<n>.csv
    parquet          your own Parquet, with a mapping.yaml of its columns
    simulated        simulated: or simulated:?seed=7&instruments=2&days=2&minutes=6"""

# a store that states its columns comes first, any .csv last
BY_CONTENT = (
    MappedParquetStore,
    HiveStore,
    BinanceArchiveStore,
    BinanceFramesStore,
    DatabentoStore,
    LobsterStore,
    TardisStore,
    DeskCsvStore,
)
NAMED = {store.KIND: store for store in (DatabentoStore, LobsterStore, TardisStore)}


class MarketStore(SupplementStore, Protocol):
    """Ticks by instrument and day, and what may be beside them.

    Attributes:
        KIND: the reader's name.
        simulated: whether the ticks are simulated; such results are labelled, never promoted.
    """

    KIND: ClassVar[str]
    simulated: bool

    @property
    def statement(self) -> Statement:
        """What the store states about itself."""
        ...

    def catalog(self) -> tuple[InstrumentDay, ...]:
        """Every instrument-day, sorted by (date, symbol)."""
        ...

    def passed_over(self) -> tuple[PassedOver, ...]:
        """Files of the store that are not read, with reasons."""
        ...

    def load(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> Loaded:
        """One instrument-day as TICKS, rows in source order, with notes on how it was read."""
        ...

    def stream(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> TickStream:
        """One instrument-day for validation, read in chunks where the layout can be."""
        ...

    def read(self, day: InstrumentDay) -> pa.Table:
        """The ticks of `load` alone."""
        ...

    def digest(self, day: InstrumentDay) -> str:
        """sha256 that changes whenever the result of `read` could change."""
        ...


def open_market(uri: str, hash_file: HashFile = hash_file) -> MarketStore:
    """Open the market store at `uri`; its content decides the reader.

    Args:
        uri: a path, any fsspec URI (file://, s3://, memory://...), one of them after the reader's
            name (`lobster:PATH`; see `readers.named`) or `simulated:[?key=value&...]`.
        hash_file: gives the sha256 of a file's bytes; another may look up what it knows.

    Raises:
        MarketChoiceError: there is nothing at the URI, or no supported layout.
        MarketError: it cannot be read.
        ConfigError: a `simulated:` or `parquet:` URI with an unknown or invalid parameter.
    """
    if uri.split(":", 1)[0] == "simulated":
        return SimulatedStore(uri)
    store = _open_files(uri)
    if isinstance(store, FileStore):
        store.hash_file = hash_file
    return store


def _open_files(uri: str) -> MarketStore:
    """The reader of the files at the URI."""
    named = split(uri)
    fs, root = _at(named.place if named else uri)
    if named and named.kind == "parquet":
        return MappedParquetStore(uri, fs, root, named.mapping and local(named.mapping))
    if named:
        return NAMED[named.kind](uri, fs, root)
    with walked_once():
        for store in BY_CONTENT:
            if store.holds(fs, root):
                return store(uri, fs, root)
    raise _without_layout(uri, fs, root)


def _at(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system and the path of a URI at which there is something."""
    try:
        if uri.startswith("s3:"):
            _register_s3()
        fs, root = fsspec.core.url_to_fs(str(Path(uri).expanduser()) if "://" not in uri else uri)
        fs.invalidate_cache()  # it may hold what an earlier run of this process saw
        if not fs.isfile(root):
            fs.ls(root, detail=False)
    except FileNotFoundError as error:
        raise _absent(uri) from error
    except (ValueError, ImportError) as error:  # an unknown protocol, or its package is missing
        raise MarketChoiceError(
            f"cannot open the market store: {error}",
            where=uri,
            remedy="correct the protocol of --data or TICKLINE_MARKET, or install its package",
        ) from error
    except OSError as error:
        raise MarketError(
            f"cannot open the market store: {error.strerror or error or type(error).__name__}",
            where=uri,
            remedy=f"check permission and network: ls -ld {uri}",
        ) from error
    except Exception as error:  # cloud file systems raise their SDK's own types
        raise MarketError(
            f"cannot open the market store: {type(error).__name__}: {first_line(error)}",
            where=uri,
            remedy="check the URI and the credentials of that file system",
        ) from error
    return fs, str(root)


@functools.cache
def _register_s3() -> None:
    """Let fsspec read `s3:` by obstore: s3fs does not resolve beside the other packages."""
    register("s3")


def _without_layout(uri: str, fs: fsspec.AbstractFileSystem, root: str) -> MarketChoiceError:
    """What is there instead of a layout."""
    if fs.isfile(root):
        return MarketChoiceError(
            "no market layout found: it is a file, and only a .csv file (or .dbn) is a store by "
            "itself",
            where=uri,
            remedy=f"name the folder that holds the ticks: tickline data describe --data "
            f"{Path(uri).parent if '://' not in uri else uri.rpartition('/')[0]}",
        )
    files = [relative(path, root) for path in walk(fs, root)]
    if not files:
        return MarketChoiceError(
            "no market layout found: the folder is empty",
            where=uri,
            remedy="fill it (docs/data.md has the layouts), or name another: "
            "tickline data describe --data PATH",
        )
    shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    return MarketChoiceError(
        "no market layout found; looked for quotes/, *.csv, *-bookTicker-*.zip, "
        "recorded frames, *.dbn and mapping.yaml, "
        f"found {len(files)} files{': ' if files else ''}{shown}",
        where=uri,
        remedy=LAYOUTS,
    )


def _absent(uri: str) -> MarketChoiceError:
    """Nothing is at the URI: how far a path exists, and what is there under a similar name."""
    what, remedy = "cannot open the market store: no such file or folder", "correct the URI"
    if "://" not in uri:
        path = Path(uri).expanduser().absolute()
        there = next(parent for parent in path.parents if parent.is_dir())
        wanted = path.relative_to(there).parts[0]
        names = [child.name for child in there.iterdir()] if os.access(there, os.R_OK) else []
        close = get_close_matches(wanted, names, n=1)
        what += f"; {there} has no {wanted}" + (f", but {close[0]}" if close else "")
        remedy = f"correct --data or TICKLINE_MARKET: ls {there}"
    return MarketChoiceError(what, where=uri, remedy=remedy)
