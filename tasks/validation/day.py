"""Validate one instrument-day: named expectations, quarantine, verdict.

Faulty rows are quarantined with their reasons and counted. Rows that repeat the row above are left
out and counted. The day fails if too many rows are faulty, a rule is broken beyond the profile's
tolerance, too few rows are left, the longest gap between rows is too long, or too many trades are
bad or outside the quotes' hours.
"""

import datetime as dt
import math
from dataclasses import dataclass
from typing import cast

import polars as pl
import pyarrow as pa

from model_code.errors import DataError
from model_code.market.measures import derive
from model_code.market.notes import DayNotes
from model_code.market.profiles import Limits, limits, presumed
from model_code.market.quality import (
    DayReport,
    ExpectationResult,
    FaultSample,
    RowRule,
    count_faults,
    divide,
    find_faults,
    row_rules,
)
from model_code.market.schema import TICKS, InstrumentDay, conform, moment
from model_code.settings import ProfileName, ValidationSpec
from tasks.validation import expectations
from tasks.validation.expectations import Outcome
from tasks.validation.figures import counted, remedy, row_figures, rows_at_fault, trade_figures

SAMPLES_PER_REASON = 20
NO_NOTES = DayNotes()
_DAY_NS = 86_400 * 10**9
_MINUTE_NS = 60 * 10**9


def _presumed(ticks: pa.Table, notes: DayNotes) -> ProfileName:
    sized = any(ticks.column(name).null_count < ticks.num_rows for name in ("bid_size", "ask_size"))
    return presumed(sized=sized, traded=notes.trades is not None)


@dataclass(frozen=True)
class DayValidation:
    """Clean rows, quarantined rows (with `row` and `reason`), and the report."""

    clean: pa.Table
    quarantined: pa.Table
    report: DayReport


def validate_day(
    ticks: pa.Table,
    day: InstrumentDay,
    spec: ValidationSpec,
    *,
    stated: ProfileName | None = None,
    notes: DayNotes = NO_NOTES,
    silences: tuple[tuple[dt.datetime, dt.datetime], ...] = (),
) -> DayValidation:
    """Validate one instrument-day. A failed day is reported, not raised.

    Store the report, then call `report.require_passed()`, which raises.

    Args:
        ticks: rows of the day in source order.
        day: their expected instrument and session date.
        spec: thresholds.
        stated: the profile that the store states; None: presumed from sizes and trades.
        notes: of the reader; counts of trades are judged too.
        silences: breaks of the session, start and end in UTC, which are no gaps.

    Raises:
        SchemaError: a column is missing or has the wrong type.
        DataError: there are no rows.
    """
    where = f"{day.symbol} {day.date}"
    ticks = conform(ticks, where)
    if not ticks.num_rows:
        raise DataError(
            f"{where} is empty: 0 rows, expected at least {spec.minimum_rows:,}",
            where=", ".join(notes.files) or where,
            remedy="fetch the day again, or remove it from the store",
        )
    bounds = limits(spec, stated or _presumed(ticks, notes))
    rules = row_rules(bounds)
    schema = _schema_results(expectations.schema_outcomes(ticks.schema))
    measures = derive(ticks, day)
    by_rule = find_faults(measures, rules)
    minutes = _minutes(measures, by_rule)
    repeat = measures["repeat"]
    if repeat.sum():
        measures = measures.filter(pl.col("repeat") == 0)
    found = expectations.row_outcomes(measures, rules)
    spread_bps = cast("float | None", measures["spread_bps"].median())
    rows = [_row_result(rule, found[rule.name], measures[rule.column]) for rule in rules]
    del measures  # as large as the ticks: free it before the clean rows are copied
    clean, quarantined = divide(ticks, by_rule, repeat)
    faults = count_faults(by_rule)
    wrong = rows_at_fault(by_rule, bounds)
    fraction = wrong / ticks.num_rows
    days = _day_results(clean, ticks.num_rows, wrong, faults, bounds, notes, silences)
    results = (*schema, *rows, *days)
    failed = [item for item in results if item.level != "row" and not item.success]
    report = DayReport(
        date=day.date,
        symbol=day.symbol,
        rows=ticks.num_rows,
        clean=clean.num_rows,
        quarantined=quarantined.num_rows,
        repeated=int(repeat.sum()),
        profile=bounds.profile,
        first=_end(clean, 0),
        last=_end(clean, -1),
        notes=notes,
        spread_bps=spread_bps if spread_bps is not None and math.isfinite(spread_bps) else None,
        faults=faults,
        expectations=results,
        passed=not failed,
        failures=tuple(f"{item.name}: {item.observed}, expected {item.limit}" for item in failed),
        remedies=tuple(
            remedy(item.name, counted(faults, bounds), rules, fraction)
            for item in failed
            if item.name != "minimum_rows" or clean.num_rows
        ),
        minutes=minutes,
        samples=_samples(quarantined, faults),
    )
    return DayValidation(clean, quarantined, report)


def _schema_results(found: dict[str, Outcome]) -> list[ExpectationResult]:
    meanings = {
        "columns": "the schema's columns, in its order",
        "column_types": "the schema's type in every column",
    }
    return [
        ExpectationResult(
            name=name,
            meaning=meaning,
            level="schema",
            columns=tuple(TICKS.names),
            success=found[name].success,
            unexpected=found[name].unexpected,
            observed="as in the schema" if found[name].success else "differs from the schema",
            limit=f"{len(TICKS)} columns",
        )
        for name, meaning in meanings.items()
    ]


def _row_result(rule: RowRule, found: Outcome, values: pl.Series) -> ExpectationResult:
    numbers = values.cast(pl.Float64)
    low, high = cast("float | None", numbers.min()), cast("float | None", numbers.max())
    if rule.required:
        observed = f"{values.null_count():,} absent"
    elif low is None or high is None:
        observed = "no values"
    else:
        ends = [low] * (rule.minimum is not None) + [high] * (rule.maximum is not None)
        observed = " to ".join(f"{end:.6g}" for end in ends)
    return ExpectationResult(
        name=rule.name,
        meaning=rule.meaning,
        level="row",
        columns=rule.source,
        success=found.success,
        unexpected=found.unexpected,
        observed=observed,
        limit=rule.limit,
    )


def _day_results(
    clean: pa.Table,
    rows: int,
    at_fault: int,
    faults: dict[str, int],
    bounds: Limits,
    notes: DayNotes,
    silences: tuple[tuple[dt.datetime, dt.datetime], ...],
) -> list[ExpectationResult]:
    figures = [*row_figures(clean, rows, at_fault, faults, bounds, silences)]
    figures += [*trade_figures(notes, bounds)]
    found = expectations.day_outcomes(
        {figure.name: (figure.value, figure.minimum, figure.maximum) for figure in figures}
    )
    return [
        ExpectationResult(
            name=figure.name,
            meaning=figure.meaning,
            level="day",
            columns=figure.columns,
            success=found[figure.name].success,
            unexpected=found[figure.name].unexpected,
            observed=figure.observed,
            limit=figure.limit,
        )
        for figure in figures
    ]


def _end(clean: pa.Table, place: int) -> dt.datetime | None:
    if not clean.num_rows:
        return None
    return moment(int(clean["timestamp"].cast(pa.int64())[place].as_py()))


def _minutes(measures: pl.DataFrame, by_rule: pl.DataFrame) -> tuple[tuple[int, int, int], ...]:
    """(minute of the UTC day, rows, rows at fault) of rows inside the session, by minute."""
    inside = pl.col("session_hour").is_between(0.0, 24.0, closed="left")
    at_fault = by_rule.select(pl.any_horizontal(pl.all())).to_series()
    minute = (pl.col("timestamp") % _DAY_NS // _MINUTE_NS).cast(pl.Int64)
    table = (
        measures.lazy()
        .select("timestamp", "session_hour", fault=at_fault)
        .filter(inside)
        .group_by(minute.alias("minute"))
        .agg(pl.len().cast(pl.Int64), pl.col("fault").cast(pl.Int64).sum())
        .sort("minute")
        .collect()
    )
    return tuple(table.rows())


def _samples(quarantined: pa.Table, faults: dict[str, int]) -> tuple[FaultSample, ...]:
    """The first SAMPLES_PER_REASON quarantined rows of each reason, each row once, in row order."""
    reasons = pl.Series(quarantined["reason"]).str.split(";")
    chosen = sorted(
        {
            place
            for name in faults
            for place in reasons.list.contains(name).arg_true().head(SAMPLES_PER_REASON)
        }
    )
    picked = quarantined.take(pa.array(chosen, pa.int64()))
    texts = [
        ["" if value is None else value for value in picked[name].cast(pa.string()).to_pylist()]
        for name in TICKS.names
    ]
    return tuple(
        FaultSample(row=row, reason=reason, values=dict(zip(TICKS.names, values, strict=True)))
        for row, reason, *values in zip(
            picked["row"].to_pylist(), picked["reason"].to_pylist(), *texts, strict=True
        )
    )
