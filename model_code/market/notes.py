"""What a reader did to one instrument-day, in numbers: nothing is left out without a count."""

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from model_code.market.trades import Trades

Aggressor = Literal["no trades", "flag", "Lee-Ready"]


class TradeNotes(BaseModel):
    """Trades of one instrument-day.

    Attributes:
        rows: trades in the source.
        repeated: an id seen before; used once.
        empty: of size 0; not used.
        bad: a price or size that is not positive and finite, or a price far off the quotes; not
            used.
        outside: stamped outside the quotes' first and last row. Earlier ones set `last_trade` and
            `vwap`; no row counts them.
        first, last: earliest and latest stamp.
        bought, sold: usable trades by aggressor.
        aggressor: whether the source says who the aggressor was, or the quotes did.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    rows: int
    repeated: int
    empty: int
    bad: int
    outside: int
    first: dt.datetime | None
    last: dt.datetime | None
    bought: int
    sold: int
    aggressor: Aggressor


class DayNotes(BaseModel):
    """What a reader found and did.

    Attributes:
        files: read for this day, relative to the store.
        resolution: of the rows' stamps, e.g. `1 ms`.
        moved: rows put in order by their update ids.
        repeated: rows with an update id seen before; left out.
        trades: None if the source has no trades.
        warnings: what the reader of the night's summary should know, in sentences.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    files: tuple[str, ...] = ()
    resolution: str = ""
    moved: int = 0
    repeated: int = 0
    trades: TradeNotes | None = None
    warnings: tuple[str, ...] = ()

    @property
    def aggressor(self) -> Aggressor:
        """How trades were classified as bought or sold."""
        return self.trades.aggressor if self.trades else "no trades"


NO_SEQUENCE: npt.NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(frozen=True)
class Loaded:
    """One instrument-day, and what it was joined from.

    Attributes:
        ticks: N rows in the schema `TICKS`.
        notes: how they were read.
        trades: the usable trades that were folded in; None if the source has none.
        sequence: (N,) the source's own number of each quote; empty without one.
        own: columns of the ticks that the source gives itself.
    """

    ticks: pa.Table
    notes: DayNotes
    trades: "Trades | None" = None
    sequence: npt.NDArray[np.int64] = field(default_factory=NO_SEQUENCE.copy)
    own: tuple[str, ...] = ()
