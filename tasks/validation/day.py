"""Validate one instrument-day: named expectations, quarantine, verdict.

Faulty rows are quarantined with their reasons and counted. The day fails if too many rows are
faulty, too few are left, or the longest gap between rows is too long.
"""

import datetime as dt
import math
from dataclasses import dataclass
from typing import cast

import polars as pl
import pyarrow as pa

from model_code.errors import DataError
from model_code.market.measures import derive
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
from model_code.market.schema import TICKS, InstrumentDay, conform
from model_code.settings import ValidationSpec
from tasks.validation import expectations
from tasks.validation.expectations import Outcome

SAMPLES_PER_REASON = 20
_DAY_NS = 86_400 * 10**9
_MINUTE_NS = 60 * 10**9


@dataclass(frozen=True)
class DayValidation:
    """Clean rows, quarantined rows (with `row` and `reason`), and the report."""

    clean: pa.Table
    quarantined: pa.Table
    report: DayReport


def validate_day(ticks: pa.Table, day: InstrumentDay, spec: ValidationSpec) -> DayValidation:
    """Validate one instrument-day. A failed day is reported, not raised.

    Store the report, then call `report.require_passed()`, which raises.

    Args:
        ticks: rows of the day in source order.
        day: their expected instrument and session date.
        spec: thresholds.

    Raises:
        SchemaError: a column is missing or has the wrong type.
        DataError: there are no rows.
    """
    where = f"{day.symbol} {day.date}"
    ticks = conform(ticks, where)
    if not ticks.num_rows:
        raise DataError(
            f"{where} is empty: 0 rows, expected at least {spec.minimum_rows:,}",
            where=where,
            remedy="fetch the day again, or remove it from the store",
        )
    rules = row_rules(spec)
    schema = _schema_results(expectations.schema_outcomes(ticks.schema))
    measures = derive(ticks, day)
    found = expectations.row_outcomes(measures, rules)
    rows = [_row_result(rule, found[rule.name], measures[rule.column]) for rule in rules]
    by_rule = find_faults(measures, rules)
    minutes = _minutes(measures, by_rule)
    del measures  # as large as the ticks: free it before the clean rows are copied
    clean, quarantined = divide(ticks, by_rule)
    faults = count_faults(by_rule)
    fraction = quarantined.num_rows / ticks.num_rows
    results = (*schema, *rows, *_day_results(clean, quarantined.num_rows, faults, spec))
    failed = [item for item in results if item.level != "row" and not item.success]
    report = DayReport(
        date=day.date,
        symbol=day.symbol,
        rows=ticks.num_rows,
        clean=clean.num_rows,
        quarantined=quarantined.num_rows,
        faults=faults,
        expectations=results,
        passed=not failed,
        failures=tuple(f"{item.name}: {item.observed}, expected {item.limit}" for item in failed),
        remedies=tuple(_remedy(item.name, faults, rules, fraction) for item in failed),
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
    clean: pa.Table, quarantined: int, faults: dict[str, int], spec: ValidationSpec
) -> list[ExpectationResult]:
    rows = clean.num_rows + quarantined
    fraction = quarantined / rows
    gap_s, silence = _longest_gap(pl.Series(clean["timestamp"].cast(pa.int64())))
    found = expectations.day_outcomes(
        {"fault_fraction": fraction, "minimum_rows": clean.num_rows, "maximum_gap": gap_s}, spec
    )
    counts = ", ".join(f"{name} {count:,}" for name, count in faults.items())
    at_fault = f"{quarantined:,} of {rows:,} rows ({fraction:.2%}) at fault"
    at_fault += f": {counts}" if faults else ""
    table = [
        ("fault_fraction", "few rows at fault", tuple(TICKS.names), at_fault,
         f"at most {spec.max_fault_fraction * 100:g}%"),
        ("minimum_rows", "enough clean rows", ("timestamp",), f"{clean.num_rows:,} clean rows",
         f"at least {spec.minimum_rows:,}"),
        ("maximum_gap", "no long silence between clean rows", ("timestamp",), silence,
         f"at most {spec.maximum_gap_s:g} s"),
    ]  # fmt: skip
    return [
        ExpectationResult(
            name=name,
            meaning=meaning,
            level="day",
            columns=columns,
            success=found[name].success,
            unexpected=found[name].unexpected,
            observed=observed,
            limit=limit,
        )
        for name, meaning, columns, observed, limit in table
    ]


def _longest_gap(clean_ns: pl.Series) -> tuple[float | None, str]:
    """Return the longest gap in seconds and a text: `silent for 73.2 s from 13:05:11 UTC`."""
    gaps = clean_ns.diff()
    at = gaps.arg_max()
    if at is None:
        return None, "fewer than 2 clean rows"
    gap_s = gaps[at] / 1e9
    since = dt.datetime.fromtimestamp(clean_ns[at - 1] // 10**9, dt.UTC)
    return gap_s, f"silent for {gap_s:,.4g} s from {since:%H:%M:%S} UTC"


def _remedy(name: str, faults: dict[str, int], rules: tuple[RowRule, ...], fraction: float) -> str:
    if name == "fault_fraction":
        most = max(faults, key=lambda reason: faults[reason])
        fix = next(rule.remedy for rule in rules if rule.name == most)
        allowed = math.ceil(fraction * 1000) / 1000
        return (
            f"{most}: {fix}; if such rows are expected here, raise --max-fault-fraction "
            f"to {allowed:g} (they are quarantined either way)"
        )
    return {
        "minimum_rows": "fetch the whole day, or lower validation.minimum_rows",
        "maximum_gap": "fetch the day again; if this market is that quiet, raise "
        "validation.maximum_gap_s",
    }.get(name, "export the file again with the schema's columns and types")


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
