"""Summary of a market store: counts, gaps and quality per instrument-day, and a plot."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from model_code.artifacts import atomic_file
from model_code.market.measures import repeats
from model_code.market.notes import DayNotes, Loaded
from model_code.market.profiles import DEFAULT
from model_code.market.readers.files import summarize
from model_code.market.schema import InstrumentDay

if TYPE_CHECKING:
    from model_code.market.store import MarketStore

_POINTS = 600  # plotted per day and instrument
_PLOTTED = 12  # instruments plotted


class DayDescription(BaseModel):
    """One instrument-day.

    Attributes:
        first, last: earliest and latest time stamp; None when the day is empty.
        ticks_per_s: median over the whole seconds from first to last.
        largest_gap_s: longest time without a row.
        backwards: rows stamped earlier than the previous row.
        crossed: rows with bid >= ask.
        missing: rows with a price that is null, NaN, infinite or not positive.
        spread_bps: median spread over mid, in basis points, of the other rows.
        tightest: share of those rows at the day's tightest spread.
        labelled: rows with a label from the source.
        repeats: rows equal to the row directly above.
        notes: what the reader found and did.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    date: dt.date
    symbol: str
    rows: int
    first: dt.datetime | None
    last: dt.datetime | None
    ticks_per_s: float
    largest_gap_s: float
    backwards: int
    crossed: int
    missing: int
    spread_bps: float | None
    tightest: float | None
    trades: int
    labelled: int
    repeats: int
    notes: DayNotes


class Curves(BaseModel):
    """Plotted curves of one instrument-day, at most 600 points each.

    Attributes:
        position: 0 at the day's first row, 1 at its last.
        mid: mean of bid and ask, quote currency.
        spread_bps: spread over mid, mean over the step to the next point.
        ticks_per_s: rows per second over the same step.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    position: tuple[float, ...]
    mid: tuple[float, ...]
    spread_bps: tuple[float, ...]
    ticks_per_s: tuple[float, ...]


class Description(BaseModel):
    """A whole store, sorted by (date, symbol); `curves` has one entry per entry of `days`.

    Attributes:
        profile: the validation profile that applies.
        stated: whether the store states it; otherwise it is assumed.
        passed_over: a sentence for each reason why files are not read.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    uri: str
    kind: str
    simulated: bool
    profile: str
    stated: bool
    passed_over: tuple[str, ...]
    days: tuple[DayDescription, ...]
    curves: tuple[Curves, ...]


def describe(store: "MarketStore") -> Description:
    """Read every instrument-day of the store, one at a time.

    Raises:
        MarketError, DataError: a day cannot be read.
    """
    days, curves = [], []
    for day in store.catalog():
        described, drawn = _describe_day(store.load(day), day)
        days.append(described)
        curves.append(drawn)
    return Description(
        uri=store.uri,
        kind=store.KIND,
        simulated=store.simulated,
        profile=store.statement.profile or DEFAULT,
        stated=store.statement.profile is not None,
        passed_over=summarize(store.passed_over(), shown=None),
        days=tuple(days),
        curves=tuple(curves),
    )


def _describe_day(loaded: Loaded, day: InstrumentDay) -> tuple[DayDescription, Curves]:
    ticks = loaded.ticks
    time = np.asarray(ticks["timestamp"].cast(pa.int64()).to_numpy(), np.int64)
    bid, ask = (ticks[name].to_numpy() for name in ("bid_price", "ask_price"))
    priced = np.isfinite(bid) & np.isfinite(ask) & (bid > 0) & (ask > 0)
    good = priced & (bid < ask)
    spread = (ask - bid)[good]
    mid = (ask + bid)[good] / 2
    ordered = np.sort(time)
    ends = (
        [dt.datetime.fromtimestamp(t / 1e9, dt.UTC) for t in ordered[[0, -1]]] if len(time) else []
    )
    description = DayDescription(
        date=day.date,
        symbol=day.symbol,
        rows=len(time),
        first=ends[0] if ends else None,
        last=ends[1] if ends else None,
        ticks_per_s=float(np.median(_per_second(ordered))) if len(time) else 0.0,
        largest_gap_s=float(np.diff(ordered).max() / 1e9) if len(time) > 1 else 0.0,
        backwards=int((np.diff(time) < 0).sum()),
        crossed=int((priced & (bid >= ask)).sum()),
        missing=int((~priced).sum()),
        spread_bps=float(np.median(spread / mid) * 1e4) if len(spread) else None,
        tightest=float((spread < 1.01 * spread.min()).mean()) if len(spread) else None,
        trades=int(ticks["trade_count"].to_numpy().sum()),
        labelled=ticks.num_rows - ticks["label"].null_count,
        repeats=int(repeats(ticks).sum()),
        notes=loaded.notes,
    )
    return description, _curves(time[good], mid, spread)


def _per_second(ordered: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rows in each second from the first row on, excluding the last, incomplete second."""
    second, count = np.unique((ordered - ordered[0]) // 1_000_000_000, return_counts=True)
    whole = max(int(second[-1]), 1)
    full = count[second < whole]
    # enough zeros for the median; a stray stamp years away must not cost memory
    return np.concatenate([full, np.zeros(min(whole, 2 * len(full) + 1) - len(full), np.int64)])


def _curves(
    time: npt.NDArray[np.int64],
    mid: npt.NDArray[np.float64],
    spread: npt.NDArray[np.float64],
) -> Curves:
    if not len(time):
        return Curves(position=(), mid=(), spread_bps=(), ticks_per_s=())
    order = np.argsort(time, kind="stable")
    time, mid, spread = time[order], mid[order], spread[order]
    # offsets, because floats cannot represent epoch nanoseconds exactly
    elapsed = time - time[0]
    row = np.searchsorted(elapsed, np.linspace(0, elapsed[-1], _POINTS), side="right") - 1
    # spread and tick rate vary from row to row: plot their mean over each step
    edges = np.searchsorted(elapsed, np.linspace(0, elapsed[-1] + 1, _POINTS + 1))
    counts = np.diff(edges)
    sums = np.diff(np.concatenate([[0.0], np.cumsum(spread / mid * 1e4)])[edges])
    with np.errstate(invalid="ignore"):
        spread_bps = np.where(counts > 0, sums / counts, (spread / mid * 1e4)[row])
    step_s = max(elapsed[-1] / 1e9 / _POINTS, 1e-9)
    return Curves(
        position=tuple(np.linspace(0.0, 1.0, _POINTS).tolist()),
        mid=tuple(mid[row].tolist()),
        spread_bps=tuple(spread_bps.tolist()),
        ticks_per_s=tuple((counts / step_s).tolist()),
    )


def plot(description: Description, path: Path) -> None:
    """Write a PNG: mid price, spread and tick rate, one row per instrument, days side by side.

    Raises:
        StorageError: the file cannot be written.
    """
    symbols = sorted({day.symbol for day in description.days})
    dates = sorted({day.date for day in description.days})
    shown = symbols[:_PLOTTED] or ["no instrument"]
    figure = Figure(figsize=(12, 1.0 + 1.9 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 3, squeeze=False, sharex=True)
    panels = ("mid", "spread_bps", "ticks_per_s")
    for panel, title in zip(
        axes[0], ("mid price", "spread (bps)", "ticks per second"), strict=True
    ):
        panel.set_title(title, fontsize=10)
    for row, symbol in zip(axes, shown, strict=True):
        row[0].set_ylabel(symbol, fontsize=8)
        for panel, name in zip(row, panels, strict=True):
            for day, curves in zip(description.days, description.curves, strict=True):
                if day.symbol == symbol:
                    x = [dates.index(day.date) + p for p in curves.position]
                    panel.plot(x, getattr(curves, name), linewidth=0.7, color="tab:blue")
            for edge in range(1, len(dates)):
                panel.axvline(edge, color="0.8", linewidth=0.6)
            panel.tick_params(labelsize=7)
            panel.ticklabel_format(axis="y", useOffset=False)
    step = max(1, len(dates) // 6)
    for panel in axes[-1]:
        panel.set_xticks([i + 0.5 for i in range(0, len(dates), step)])
        panel.set_xticklabels([f"{date:%m-%d}" for date in dates[::step]])
    more = f", {len(symbols) - len(shown)} more not shown" if len(symbols) > len(shown) else ""
    title = f"{description.uri} ({description.kind}{more})"
    figure.suptitle("SIMULATED MARKET: " + title if description.simulated else title, fontsize=11)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
