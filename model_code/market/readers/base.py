"""What every file-backed store shares: where it is, what it states, which files it has."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import fsspec
import pyarrow as pa

from model_code.market.notes import Loaded
from model_code.market.readers.files import walk
from model_code.market.readers.statement import Statement, read_statement
from model_code.market.schema import InstrumentDay


class FileStore(ABC):
    """A store of files below a root; see `model_code.market.store.MarketStore`.

    Attributes:
        uri: what was opened.
    """

    KIND: ClassVar[str]
    simulated = False

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, root: str) -> None:
        self.uri, self._fs, self._root = uri, fs, root.rstrip("/")

    @cached_property
    def statement(self) -> Statement:
        """What the store's `tickline.yaml` says."""
        return read_statement(self._fs, self._root)

    @cached_property
    def _paths(self) -> list[str]:
        return walk(self._fs, self._root)

    @abstractmethod
    def load(self, day: InstrumentDay, *, trade_band_bps: float = 200.0) -> Loaded:
        """One instrument-day as TICKS, with notes on how it was read."""

    def read(self, day: InstrumentDay) -> pa.Table:
        """The ticks of `load` alone."""
        return self.load(day).ticks
