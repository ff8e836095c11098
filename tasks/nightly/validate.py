"""Stage `validate`: read one instrument-day, quarantine faulty rows, judge the day."""

import pyarrow.parquet as pq

from model_code.errors import DataError
from model_code.market.schema import InstrumentDay
from model_code.market.store import open_market
from model_code.settings import ValidationSpec
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import CleanDay, SourceDay, ValidatedDay


@stage(
    "validate",
    run_name="validate {source.symbol} {source.date}",
)
def validate(run: RunRef, source: SourceDay, spec: ValidationSpec) -> ValidatedDay:
    """Read one instrument-day, quarantine faulty rows, judge the day."""
    from tasks.validation.day import validate_day  # Great Expectations takes seconds to import

    store = open_market(source.market)
    ticks = store.read(InstrumentDay(source.date, source.symbol))
    found = validate_day(ticks, InstrumentDay(source.date, source.symbol), spec)
    with run.store.scratch() as scratch:
        clean = scratch / f"{source.symbol}-{source.date}.parquet"
        pq.write_table(found.clean, clean, compression="zstd")
        quarantine = None
        if found.quarantined.num_rows:
            rejected = scratch / f"{source.symbol}-{source.date}-quarantine.parquet"
            pq.write_table(found.quarantined, rejected, compression="zstd")
            quarantine = run.store.put(rejected)
        report = scratch / f"{source.symbol}-{source.date}.json"
        report.write_text(found.report.model_dump_json(indent=2))
        return ValidatedDay(
            date=source.date,
            symbol=source.symbol,
            rows=found.report.rows,
            quarantined=found.report.quarantined,
            faults=found.report.faults,
            failures=found.report.failures,
            remedies=found.report.remedies,
            clean=run.store.put(clean),
            quarantine=quarantine,
            report=run.store.put(report),
        )


def require_passed(days: tuple[ValidatedDay, ...]) -> tuple[CleanDay, ...]:
    """Return the clean ticks if every day passed.

    Raises:
        DataError: a day failed; the message says which, why, and where its rows are.
    """
    failed = [day for day in days if day.failures]
    if failed:
        rows = ", ".join(day.quarantine.path for day in failed if day.quarantine)
        raise DataError(
            "\n".join(
                f"{day.symbol} {day.date} failed validation: {'; '.join(day.failures)}"
                for day in failed
            ),
            where=f"quarantined rows: {rows or 'none'}; report: validation/report.html in MLflow",
            remedy="; ".join(dict.fromkeys(remedy for day in failed for remedy in day.remedies)),
        )
    return tuple(day.day for day in days)
