"""The figures of a whole day, their bounds, and what to do about a bound that is broken."""

import datetime as dt
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from model_code.market.measures import FLOW
from model_code.market.notes import DayNotes
from model_code.market.profiles import Limits
from model_code.market.quality import RowRule
from model_code.market.schema import TICKS, moment

UNSUPPORTED = 0.5  # of the rows with prices at or below zero: not a fault but the market
ADVISED_FRACTION = 0.2  # no advice to accept more rows at fault than this
SHARE = "_share"


@dataclass(frozen=True)
class DayFigure:
    """A figure of the whole day and its bound."""

    name: str
    meaning: str
    columns: tuple[str, ...]
    value: float | None
    observed: str
    limit: str
    minimum: float | None = None
    maximum: float | None = None


class LongestGap:
    """The longest gap between clean rows that are read in chunks.

    Args:
        silences: breaks of the session, start and end in UTC; they are no gaps.
    """

    def __init__(self, silences: tuple[tuple[dt.datetime, dt.datetime], ...]) -> None:
        self._silences = [
            (int(start.timestamp()) * 10**9, int(end.timestamp()) * 10**9)
            for start, end in silences
        ]
        self._newest = np.empty(0, np.int64)
        self._gap_ns: int | None = None
        self._since = 0

    def add(self, time_ns: npt.NDArray[np.int64]) -> None:
        """Take the stamps of the next clean rows."""
        time = np.concatenate([self._newest, time_ns])
        self._newest = time[-1:]
        gaps = np.diff(time)
        for start, end in self._silences:
            gaps -= np.maximum(np.minimum(time[1:], end) - np.maximum(time[:-1], start), 0)
        if not len(gaps):
            return
        at = int(np.argmax(gaps))
        if self._gap_ns is None or self._gap_ns < int(gaps[at]):
            self._gap_ns, self._since = int(gaps[at]), int(time[at])

    @property
    def seconds(self) -> float | None:
        """None with fewer than 2 rows."""
        return None if self._gap_ns is None else self._gap_ns / 1e9

    @property
    def text(self) -> str:
        """`silent for 73.2 s from ...`."""
        if self.seconds is None:
            return "fewer than 2 clean rows"
        return f"silent for {duration(self.seconds)} from {moment(self._since):%H:%M:%S} UTC"


def row_figures(
    clean: int,
    gap: LongestGap,
    rows: int,
    at_fault: int,
    faults: dict[str, int],
    bounds: Limits,
) -> Iterator[DayFigure]:
    """Faulty rows by tolerance, clean rows left, longest silence.

    Args:
        clean: how many rows are left without repeats and quarantined ones.
        gap: between them.
        rows: read.
        at_fault: of `rows_at_fault`.
        faults: rows by broken rule.
        bounds: thresholds.
    """
    counts = ", ".join(f"{name} {count:,}" for name, count in counted(faults, bounds).items())
    yield DayFigure(
        "fault_fraction",
        "few rows at fault",
        tuple(TICKS.names),
        at_fault / rows,
        f"{at_fault:,} of {rows:,} rows ({at_fault / rows:.2%}) at fault"
        + (f": {counts}" if counts else ""),
        f"at most {bounds.max_fault_fraction * 100:g}%",
        maximum=bounds.max_fault_fraction,
    )
    for name, share in bounds.tolerance.items():
        count = faults.get(name, 0)
        yield DayFigure(
            f"{name}{SHARE}",
            f"no more rows with {name} than usual in this market",
            tuple(TICKS.names),
            count / rows,
            f"{count:,} of {rows:,} rows ({count / rows:.2%})",
            f"at most {share * 100:g}% (profile {bounds.profile})",
            maximum=share,
        )
    yield DayFigure(
        "minimum_rows",
        "enough clean rows",
        ("timestamp",),
        clean,
        f"{clean:,} clean rows",
        f"at least {bounds.minimum_rows:,}",
        minimum=bounds.minimum_rows,
    )
    yield DayFigure(
        "maximum_gap",
        "no long silence between clean rows",
        ("timestamp",),
        gap.seconds,
        gap.text,
        f"at most {duration(bounds.maximum_gap_s)}",
        maximum=bounds.maximum_gap_s,
    )


def trade_figures(notes: DayNotes, bounds: Limits) -> Iterator[DayFigure]:
    """The share of trades that are bad or outside the quotes' hours; nothing without trades."""
    if notes.trades is None or not notes.trades.rows:
        return
    trades = notes.trades
    once = trades.rows - trades.repeated
    wrong = trades.bad + trades.outside
    yield DayFigure(
        "trade_faults",
        "few trades that are bad or outside the quotes' hours",
        ("last_trade", "vwap", *FLOW),
        wrong / once,
        f"{trades.outside:,} of {once:,} trades lie outside the quotes' hours, "
        f"{trades.bad:,} are bad",
        f"at most {bounds.max_trade_fault_fraction * 100:g}% of the trades",
        maximum=bounds.max_trade_fault_fraction,
    )


def counted(faults: dict[str, int], bounds: Limits) -> dict[str, int]:
    """Faults of the rules without a tolerance of their own."""
    return {name: count for name, count in faults.items() if name not in bounds.tolerance}


def rows_at_fault(by_rule: pl.DataFrame, bounds: Limits) -> int:
    """Rows that break a rule without a tolerance of its own."""
    counted = [name for name in by_rule.columns if name not in bounds.tolerance]
    return int(by_rule.select(pl.any_horizontal(counted).sum()).item())


def duration(seconds: float) -> str:
    """`73.2 s`, `12 min 5 s`, `2 h 59 min`."""
    if seconds < 120:
        return f"{seconds:.4g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def remedy(name: str, faults: dict[str, int], rules: tuple[RowRule, ...], fraction: float) -> str:
    """What to do about a broken figure.

    Args:
        name: of the figure.
        faults: rows by broken rule, of rules without a tolerance.
        rules: the row rules; each knows its own remedy.
        fraction: of rows at fault.
    """
    by_name = {rule.name: rule for rule in rules}
    if name == "fault_fraction":
        most = max(faults, key=lambda reason: faults[reason])
        text = f"{most}: {by_name[most].remedy}"
        if most == "price_not_positive" and fraction > UNSUPPORTED:
            return (
                "prices at or below zero are unsupported: leave this instrument out (--instrument)"
            )
        if fraction > ADVISED_FRACTION:
            return text
        allowed = math.ceil(fraction * 1000) / 1000
        return (
            f"{text}; if such rows are expected here, raise --max-fault-fraction "
            f"to {allowed:g} (they are quarantined either way)"
        )
    if name.endswith(SHARE):
        rule = name.removesuffix(SHARE)
        return f"{rule}: {by_name[rule].remedy}; or choose another --profile"
    return {
        "minimum_rows": "fetch the whole day, or lower validation.minimum_rows",
        "maximum_gap": "fetch the day again; if the market rests then, name its calendar "
        "(spec.calendar); if it is that quiet, raise validation.maximum_gap_s",
        "trade_faults": "check that trades and quotes are of one instrument, one day and one time "
        "zone (UTC); fetch the day's trades again",
    }.get(name, "export the file again with the schema's columns and types")
