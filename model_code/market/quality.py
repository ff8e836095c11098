"""Row faults: the table of rules, the quarantine, and a day's report.

`derive` measures every row (spread in bps, seconds the clock went back, jump in volatilities ...).
`row_rules` sets the limits of each measure. `quarantine` splits a day by them. The Great
Expectations suite of `tasks/validation/expectations.py` uses the same measures and rules, so each
threshold is defined once.
"""

import datetime as dt
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from model_code.errors import DataError
from model_code.market.measures import FLOATS, FLOW, derive
from model_code.market.notes import DayNotes
from model_code.market.profiles import Limits, limits
from model_code.market.schema import InstrumentDay
from model_code.settings import ValidationSpec


@dataclass(frozen=True)
class RowRule:
    """One expectation about every row; its name is the `reason` of the rows that break it.

    Attributes:
        name: of the fault, e.g. `clock_back`.
        meaning: what is expected of a valid row.
        column: the measure (a column of `derive`) that the rule limits.
        source: the tick columns it is computed from.
        remedy: what to do about a feed that breaks it often.
        minimum: least allowed value; `strict` excludes the bound itself.
        maximum: greatest allowed value; `strict` excludes the bound itself.
        strict: whether the bounds themselves are faults.
        required: a null is the fault; the bounds are not used.
    """

    name: str
    meaning: str
    column: str
    source: tuple[str, ...]
    remedy: str
    minimum: float | None = None
    maximum: float | None = None
    strict: bool = False
    required: bool = False

    def fault(self) -> pl.Expr:
        """Boolean expression over `derive`'s columns: the row breaks this rule."""
        value = pl.col(self.column)
        if self.required:
            return value.is_null()
        broken = pl.lit(value=False)
        if self.minimum is not None:
            broken |= value <= self.minimum if self.strict else value < self.minimum
        if self.maximum is not None:
            broken |= value >= self.maximum if self.strict else value > self.maximum
        return broken.fill_null(value=False)

    @property
    def limit(self) -> str:
        """The bounds as text, e.g. `spread_bps <= 100`."""
        if self.required:
            return f"{self.column} present"
        low = "" if self.minimum is None else f"{self.minimum:g} {'<' if self.strict else '<='} "
        high = "" if self.maximum is None else f" {'<' if self.strict else '<='} {self.maximum:g}"
        return f"{low}{self.column}{high}"


def row_rules(spec: ValidationSpec | Limits) -> tuple[RowRule, ...]:
    """The rules in the order in which a row's reasons are listed."""
    spec = spec if isinstance(spec, Limits) else limits(spec)
    quotes = ("bid_price", "ask_price")
    prices = (*quotes, "last_trade", "vwap")
    sizes = ("bid_size", "ask_size")
    export = "request a complete export of this day from the data provider"
    return (
        RowRule("missing_timestamp", "a time on every row", "timestamp", ("timestamp",),
                export, required=True),
        RowRule("wrong_symbol", "the instrument of the file's name", "wrong_symbol", ("symbol",),
                "export one file per instrument", maximum=0),
        RowRule("missing_bid", "a bid on every row", "bid_price", ("bid_price",),
                export, required=True),
        RowRule("missing_ask", "an ask on every row", "ask_price", ("ask_price",),
                export, required=True),
        RowRule("missing_flow", "traded volumes and count on every row (0 without trades)",
                "missing_flow", FLOW, export, maximum=0),
        RowRule("not_finite", "finite numbers (an absent optional value is null, not NaN)",
                "not_finite", FLOATS, "check for overflow or division by zero upstream",
                maximum=0),
        RowRule("price_not_positive", "prices above 0", "lowest_price", prices,
                "check for placeholder prices (0, -1) in the export; real prices at or below zero "
                "are unsupported", minimum=0.0, strict=True),
        RowRule("size_not_positive", "sizes above 0, if there are sizes", "lowest_size", sizes,
                "check for placeholder sizes (0, -1) in the export", minimum=0.0, strict=True),
        RowRule("flow_negative", "traded volumes and count of at least 0", "lowest_flow",
                FLOW, "export unsigned volumes in buy_volume and sell_volume",
                minimum=0.0),
        RowRule("crossed_quote", "bid not above ask", "spread", quotes,
                "filter quotes with the bid above the ask at the source", minimum=0.0),
        RowRule("locked_quote", "bid not equal to ask", "locked", quotes,
                "filter quotes with the bid equal to the ask at the source", maximum=0),
        RowRule("spread_too_wide", "a spread within the allowed range, or within five of the "
                "day's tightest", "wide_spread_bps", quotes,
                "raise validation.maximum_spread_bps if such spreads are normal in this market",
                maximum=spec.maximum_spread_bps),
        RowRule("outside_session", "a time inside the session's UTC date", "session_hour",
                ("timestamp",), "check the export's time zone: stamps are UTC", minimum=0.0,
                maximum=math.nextafter(24.0, 0.0)),
        RowRule("clock_back", "a time in order with those of the rows around it", "clock_back_s",
                ("timestamp",), "export rows in the order of receipt, from one clock", maximum=0),
        RowRule("price_jump", "no jump far beyond the rolling volatility", "jump_sigma", quotes,
                "compare with another source; raise validation.maximum_jump_sigma if it is real",
                maximum=spec.maximum_jump_sigma),
        RowRule("trade_off_quotes", "the last trade inside a band around the quotes",
                "trade_off_bps", (*quotes, "last_trade"),
                "check that trades and quotes share one instrument and one clock; "
                "raise validation.trade_band_bps if they do", maximum=spec.trade_band_bps),
        RowRule("vwap_off_range", "a vwap inside the day's price range, within the trade band",
                "vwap_off_bps", (*quotes, "vwap"),
                "check that vwap restarts with the session; raise validation.trade_band_bps "
                "if it does", maximum=spec.trade_band_bps),
        RowRule("bad_label", "a label of 0 or 1, if there are labels", "label", ("label",),
                "export the label as 0 or 1, or leave the column empty", minimum=0, maximum=1),
    )  # fmt: skip


def find_faults(measures: pl.DataFrame, rules: tuple[RowRule, ...]) -> pl.DataFrame:
    """(N, rules) booleans: which row breaks which rule; one column per rule, with its name.

    A row that repeats the row above is left out as a repeat, whatever it breaks.
    """
    fresh = pl.col("repeat") == 0
    return measures.select((rule.fault() & fresh).alias(rule.name) for rule in rules)


def count_faults(faults: pl.DataFrame) -> dict[str, int]:
    """Rows that break each rule; rules that no row breaks are omitted."""
    return {name: int(count) for name, count in faults.sum().row(0, named=True).items() if count}


def divide(
    ticks: pa.Table, faults: pl.DataFrame, repeat: pl.Series | None = None, start: int = 0
) -> tuple[pa.Table, pa.Table]:
    """Split `ticks` by `find_faults` of the same rows, without repeats; see `quarantine`.

    Args:
        ticks: N rows.
        faults: (N, rules), see `find_faults`.
        repeat: (N,) rows to leave out; None: none.
        start: of the first row in its day.
    """
    keep = ~repeat.cast(pl.Boolean) if repeat is not None else None
    faulty = faults.select(pl.any_horizontal(pl.all())).to_series()
    reasons = faults.filter(faulty).select(
        pl.concat_str(
            [pl.when(pl.col(name)).then(pl.lit(name)) for name in faults.columns],
            separator=";",
            ignore_nulls=True,
        )
    )
    places = faulty.arg_true().to_numpy().astype(np.int64)
    quarantined = ticks.take(pa.array(places)).append_column("row", pa.array(places + start))
    quarantined = quarantined.append_column("reason", pa.array(reasons.to_series(), pa.string()))
    good = ~faulty if keep is None else ~faulty & keep
    clean = ticks if good.all() else ticks.filter(good.to_arrow())
    return clean, quarantined


def quarantine(
    ticks: pa.Table, day: InstrumentDay, spec: ValidationSpec | Limits
) -> tuple[pa.Table, pa.Table, dict[str, int]]:
    """Separate the rows that break a rule from the clean ones.

    Args:
        ticks: N rows conforming to `TICKS`, in source order.
        day: expected instrument and session date.
        spec: thresholds.

    Returns:
        The clean rows, in source order, without repeats of the row above; the quarantined rows with
        two more columns, `row` (int64, index in the source) and `reason` (names of all rules
        broken, joined by `;`, in `row_rules` order); and how many rows broke each rule (rules that
        no row breaks are omitted). A row that breaks two rules counts under both.
    """
    measures = derive(ticks, day)
    faults = find_faults(measures, row_rules(spec))
    return *divide(ticks, faults, measures["repeat"]), count_faults(faults)


class ExpectationResult(BaseModel):
    """Result of one named expectation.

    Attributes:
        name: of the expectation; for a row rule also the `reason` in the quarantine.
        level: a broken `schema` or `day` expectation fails the day; rows that break `row` rules are
            quarantined, and their fraction decides.
        unexpected: rows (of a schema expectation: columns) that break it; 0 or 1 for a day.
        observed: the extreme value seen, as text.
        limit: the bound, as text.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    name: str
    meaning: str
    level: Literal["schema", "row", "day"]
    columns: tuple[str, ...]
    success: bool
    unexpected: int
    observed: str
    limit: str


class FaultSample(BaseModel):
    """One quarantined row, its values as text."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    row: int
    reason: str
    values: dict[str, str]


class DayReport(BaseModel):
    """Result of one instrument-day, as plain JSON-able values.

    Attributes:
        rows: rows read; `clean` are used, `quarantined` and `repeated` are not.
        repeated: rows equal to the row directly above; left out, not a fault.
        profile: the market's profile, whose tolerances apply.
        first, last: earliest and latest stamp of the clean rows.
        notes: what the reader found and did.
        faults: rows by reason; a row with two reasons counts under both.
        failures: why the day must not be used, in sentences; empty if it passed.
        remedies: what to do about them.
        spread_bps: median spread over mid; None in a report of an earlier version.
        minutes: (minute of the UTC day, rows, faulty rows); minutes without rows are omitted.
        samples: the first few quarantined rows of each reason.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    date: dt.date
    symbol: str
    rows: int
    clean: int
    quarantined: int
    repeated: int = 0
    profile: str = "crypto"
    first: dt.datetime | None = None
    last: dt.datetime | None = None
    notes: DayNotes = DayNotes()
    spread_bps: float | None = None
    faults: dict[str, int]
    expectations: tuple[ExpectationResult, ...]
    passed: bool
    failures: tuple[str, ...]
    remedies: tuple[str, ...]
    minutes: tuple[tuple[int, int, int], ...]
    samples: tuple[FaultSample, ...]

    @property
    def fault_fraction(self) -> float:
        """Quarantined rows over all rows."""
        return self.quarantined / self.rows

    def require_passed(self) -> None:
        """Raise if the day must not be used.

        Raises:
            DataError: with every failure and its remedy.
        """
        if not self.passed:
            raise DataError(
                f"validation failed for {self.symbol} on {self.date}: " + "; ".join(self.failures),
                where=f"{self.symbol} {self.date}",
                remedy="; ".join(self.remedies),
            )
