"""Validate one instrument-day: named expectations, quarantine, verdict.

Faulty rows are quarantined with their reasons and counted. Rows that repeat the row above are left
out and counted. The day fails if too many rows are faulty, a rule is broken beyond the profile's
tolerance, too few rows are left, the longest gap between rows is too long, or too many trades are
bad or outside the quotes' hours.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from model_code.errors import DataError
from model_code.market.measures import Measures
from model_code.market.notes import DayNotes
from model_code.market.profiles import Limits, limits, presumed
from model_code.market.quality import (
    DayReport,
    ExpectationResult,
    divide,
    find_faults,
    row_rules,
)
from model_code.market.schema import TICKS, InstrumentDay, conform, moment
from model_code.market.stream.ticks import TableTicks, TickStream
from model_code.settings import ProfileName, ValidationSpec
from tasks.validation import expectations
from tasks.validation.expectations import Outcome
from tasks.validation.figures import LongestGap, counted, remedy, row_figures, trade_figures
from tasks.validation.totals import RowTotals, Samples

NO_NOTES = DayNotes()
Write = Callable[[pa.Table], None]
Silences = tuple[tuple[dt.datetime, dt.datetime], ...]


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
    silences: Silences = (),
) -> DayValidation:
    """Validate one instrument-day in memory; arguments and errors as `validate_ticks`."""
    clean: list[pa.Table] = []
    quarantined: list[pa.Table] = []
    ticks = conform(ticks, f"{day.symbol} {day.date}")
    report = validate_ticks(
        TableTicks(ticks, notes),
        day,
        spec,
        clean=clean.append,
        quarantined=quarantined.append,
        stated=stated,
        silences=silences,
    )
    return DayValidation(pa.concat_tables(clean), pa.concat_tables(quarantined), report)


def validate_ticks(
    ticks: TickStream,
    day: InstrumentDay,
    spec: ValidationSpec,
    *,
    clean: Write,
    quarantined: Write,
    stated: ProfileName | None = None,
    silences: Silences = (),
) -> DayReport:
    """Validate one instrument-day chunk by chunk. A failed day is reported, not raised.

    Store the report, then call `report.require_passed()`, which raises.

    Args:
        ticks: rows of the day in source order, and the reader's notes; counts of trades are judged
            too.
        day: their expected instrument and session date.
        spec: thresholds.
        clean: called with the clean rows, chunk by chunk.
        quarantined: called with the quarantined rows (with `row` and `reason`), chunk by chunk.
        stated: the profile that the store states; None: presumed from sizes and trades.
        silences: breaks of the session, start and end in UTC, which are no gaps.

    Returns:
        The report, the same for every size of chunk.

    Raises:
        SchemaError: a column is missing or has the wrong type.
        DataError: there are no rows.
    """
    count, facts = ticks.measure(day)
    if not count:
        where = f"{day.symbol} {day.date}"
        raise DataError(
            f"{where} is empty: 0 rows, expected at least {spec.minimum_rows:,}",
            where=", ".join(ticks.notes.files) or where,
            remedy="fetch the day again, or remove it from the store",
        )
    bounds = limits(spec, stated or _presumed(ticks, spec))
    rules = row_rules(bounds)
    schema: list[ExpectationResult] = []
    measures, rows, samples, kept = (
        Measures(facts, day),
        RowTotals(rules, bounds),
        Samples(),
        (_Kept(silences)),
    )
    for chunk in ticks.chunks():
        schema = schema or _schema_results(expectations.schema_outcomes(chunk.schema))
        measured = measures.derive(chunk)
        by_rule = find_faults(measured, rules)
        good, bad = divide(chunk, by_rule, measured["repeat"], start=rows.rows)
        rows.add(measured, by_rule)
        samples.add(bad)
        kept.add(good)
        clean(good)
        quarantined(bad)
    notes, faults, fraction = ticks.notes, rows.faults, rows.at_fault / rows.rows
    days = _day_results(kept, rows, bounds, notes)
    results = (*schema, *rows.results(), *days)
    failed = [item for item in results if item.level != "row" and not item.success]
    return DayReport(
        date=day.date,
        symbol=day.symbol,
        rows=rows.rows,
        clean=kept.rows,
        quarantined=rows.rows - rows.repeated - kept.rows,
        repeated=rows.repeated,
        profile=bounds.profile,
        first=kept.first,
        last=kept.last,
        notes=notes,
        spread_bps=rows.spread_bps,
        faults=faults,
        expectations=results,
        passed=not failed,
        failures=tuple(f"{item.name}: {item.observed}, expected {item.limit}" for item in failed),
        remedies=tuple(
            remedy(item.name, counted(faults, bounds), rules, fraction)
            for item in failed
            if item.name != "minimum_rows" or kept.rows
        ),
        minutes=rows.minutes,
        samples=samples.found,
    )


def _presumed(ticks: TickStream, spec: ValidationSpec) -> ProfileName | None:
    if spec.profile:
        return None  # sizes are read to presume one
    return presumed(sized=ticks.traded or ticks.sized, traded=ticks.traded)


class _Kept:
    """The clean rows so far: how many, the first and the last stamp, the longest gap."""

    def __init__(self, silences: Silences) -> None:
        self.rows = 0
        self.gap = LongestGap(silences)
        self.first: dt.datetime | None = None
        self.last: dt.datetime | None = None

    def add(self, clean: pa.Table) -> None:
        if not clean.num_rows:
            return
        time = clean["timestamp"].cast(pa.int64()).to_numpy()
        self.rows += len(time)
        self.gap.add(time)
        self.first = self.first or moment(time[0])
        self.last = moment(time[-1])


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


def _day_results(
    kept: _Kept, rows: RowTotals, bounds: Limits, notes: DayNotes
) -> list[ExpectationResult]:
    figures = [
        *row_figures(kept.rows, kept.gap, rows.rows, rows.at_fault, rows.faults, bounds),
        *trade_figures(notes, bounds),
    ]
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
