"""One instrument-day as validation reads it: twice, chunk by chunk."""

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from model_code.market.measures import DayFacts, DayScan
from model_code.market.notes import DayNotes, Loaded
from model_code.market.schema import InstrumentDay
from model_code.market.stream.rows import CHUNK_ROWS, TableRows


class TickStream(Protocol):
    """The ticks of one instrument-day.

    Attributes:
        traded: whether the source has trades.
        sized: whether a quote has a size.
        notes: how the day was read; complete once `chunks` has been read to its end.
    """

    @property
    def traded(self) -> bool:
        """Whether the source has trades."""
        ...

    @property
    def sized(self) -> bool:
        """Whether a quote has a size."""
        ...

    @property
    def notes(self) -> DayNotes:
        """How the day was read; complete once `chunks` has been read to its end."""
        ...

    def measure(self, day: InstrumentDay) -> tuple[int, DayFacts]:
        """How many rows the day has, and the figures that their measures refer to."""
        ...

    def chunks(self) -> Iterator[pa.Table]:
        """TICKS rows in source order."""
        ...


class TableTicks:
    """The ticks of a day in memory.

    Args:
        ticks: N rows conforming to `TICKS`, in source order.
        notes: how they were read.
        size: rows in a chunk; None: all in one.
    """

    def __init__(self, ticks: pa.Table, notes: DayNotes, size: int | None = None) -> None:
        self._ticks, self._rows, self.notes = ticks, TableRows(ticks, size), notes

    @classmethod
    def of(cls, loaded: Loaded) -> "TableTicks":
        """The ticks of a day that was read as a whole."""
        return cls(loaded.ticks, loaded.notes, CHUNK_ROWS)

    @property
    def traded(self) -> bool:
        """Whether the source has trades."""
        return self.notes.trades is not None

    @property
    def sized(self) -> bool:
        """Whether a quote has a size."""
        sizes = (self._ticks[name] for name in ("bid_size", "ask_size"))
        return any(size.null_count < len(size) for size in sizes)

    def measure(self, day: InstrumentDay) -> tuple[int, DayFacts]:
        """How many rows the day has, and the figures that their measures refer to."""
        scan = DayScan(day)
        for chunk in self._rows.chunks():
            scan.add(chunk)
        return self._ticks.num_rows, scan.facts(self._rows)

    def chunks(self) -> Iterator[pa.Table]:
        """TICKS rows in source order."""
        return self._rows.chunks()
