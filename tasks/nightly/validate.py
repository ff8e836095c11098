"""Stage `validate`: read one instrument-day, quarantine faulty rows, judge the day."""

from collections.abc import Iterator
from urllib.parse import quote

from model_code.artifacts import ArtifactStore
from model_code.errors import DataError
from model_code.market.calendar import early_close
from model_code.market.coverage import shortfalls
from model_code.market.notes import DayNotes
from model_code.market.profiles import DEFAULT
from model_code.market.quality import DayReport
from model_code.market.schema import InstrumentDay
from model_code.settings import ValidationSpec
from tasks.caching.opened_market import opened
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import CleanDay, SourceDay, ValidatedDay
from tasks.validation.day_files import day_file

SHOWN_DAYS = 5  # failed days in the message; the report has all


@stage(
    "validate",
    run_name="validate {source.symbol} {source.date}",
)
def validate(run: RunRef, source: SourceDay, spec: ValidationSpec) -> ValidatedDay:
    """Read one instrument-day, quarantine faulty rows, judge the day."""
    from tasks.validation.day import validate_ticks  # Great Expectations takes seconds to import

    day = InstrumentDay(source.date, source.symbol)
    name = f"{quote(source.symbol, safe='')}-{source.date}"  # a symbol may hold "/"
    with run.store.scratch() as scratch:
        clean, rejected = scratch / f"{name}.parquet", scratch / f"{name}-quarantine.parquet"
        with day_file(clean) as kept, day_file(rejected) as set_aside:
            found = validate_ticks(
                opened(source.market, run.flow_run_id).stream(
                    day, trade_band_bps=spec.trade_band_bps
                ),
                day,
                spec,
                clean=kept.write,
                quarantined=set_aside.write,
                stated=source.profile,
                silences=source.silences,
            )
        report = scratch / f"{name}.json"
        report.write_text(found.model_dump_json(indent=2))
        trades = found.notes.trades
        return ValidatedDay(
            date=source.date,
            symbol=source.symbol,
            rows=found.rows,
            quarantined=found.quarantined,
            repeated=found.repeated,
            profile=found.profile,
            first=found.first,
            last=found.last,
            trades=trades.rows - trades.repeated if trades else None,
            notes=(
                *_presumption(found, spec.profile or source.profile),
                *_sentences(found, found.notes),
            ),
            faults=found.faults,
            failures=found.failures,
            remedies=found.remedies,
            clean=run.store.put(clean),
            quarantine=run.store.put(rejected) if set_aside.rows else None,
            report=run.store.put(report),
        )


def _presumption(report: DayReport, named: str | None) -> Iterator[str]:
    if named is None and report.profile != DEFAULT:
        yield (
            f"profile {report.profile} presumed: quotes without sizes, no trades "
            "(state it in tickline.yaml or with --profile)"
        )


def _sentences(report: DayReport, notes: DayNotes) -> Iterator[str]:
    """What was left out, moved or assumed, each with its count."""
    trades = notes.trades
    counts = [
        (report.quarantined, f"rows quarantined ({', '.join(report.faults)})"),
        (report.repeated, "rows repeat the row above, left out"),
        (notes.repeated, "rows repeat an update id, left out"),
        (notes.moved, "rows put in order by update id"),
    ]
    if trades:
        counts += [
            (trades.repeated, "trades repeat an id, used once"),
            (trades.bad, "bad trades left out"),
            (trades.empty, "trades of size 0 left out"),
            (trades.outside, "trades outside the quotes' hours"),
        ]
    yield from (_spelled(count, text) for count, text in counts if count)
    if notes.aggressor == "Lee-Ready":
        yield "trades without an aggressor flag: classified by Lee and Ready"
    yield from notes.warnings


def _spelled(count: int, text: str) -> str:
    """`5 rows quarantined`, `1 row quarantined`."""
    if count == 1:
        for plural, one in (("rows ", "row "), ("trades ", "trade "), ("repeat ", "repeats ")):
            text = text.replace(plural, one, 1)
    return f"{count:,} {text}"


def judge_coverage(
    days: tuple[ValidatedDay, ...], spec: ValidationSpec, calendar: str
) -> tuple[ValidatedDay, ...]:
    """Return the days with failures and notes of those that are not whole."""
    found = shortfalls([day.span for day in days], spec, lambda date: early_close(calendar, date))
    remedy = (
        "fetch the truncated day again; if it is whole, lower validation.minimum_row_share, raise "
        "validation.truncated_fraction, or name the market's calendar (spec.calendar)"
    )
    judged = []
    for day in days:
        own = [item for item in found if (item.day.date, item.day.symbol) == (day.date, day.symbol)]
        failures = tuple(item.text for item in own if item.failure)
        judged.append(
            day.model_copy(
                update={
                    "failures": day.failures + failures,
                    "remedies": day.remedies + (remedy,) * bool(failures),
                    "notes": day.notes + tuple(item.text for item in own if not item.failure),
                }
            )
        )
    return tuple(judged)


def day_notes(days: tuple[ValidatedDay, ...]) -> tuple[str, ...]:
    """One sentence for each note and day, days with the same note together."""
    by_note: dict[str, list[str]] = {}
    for day in days:
        for note in day.notes:
            by_note.setdefault(note, []).append(f"{day.symbol} {day.date}")
    return tuple(
        f"{', '.join(names[:2])}{f' and {len(names) - 2} more' if len(names) > 2 else ''}: {note}"
        for note, names in by_note.items()
    )


def require_passed(store: ArtifactStore, days: tuple[ValidatedDay, ...]) -> tuple[CleanDay, ...]:
    """Return the clean ticks if every day passed.

    Raises:
        DataError: a day failed; the message says which, why, and where its rows are.
    """
    failed = [day for day in days if day.failures]
    if failed:
        paths = [str(store.path(day.quarantine)) for day in failed if day.quarantine]
        rows = ", ".join(paths[:SHOWN_DAYS]) + " ..." * (len(paths) > SHOWN_DAYS)
        lines = [
            f"{day.symbol} {day.date} failed validation: {'; '.join(day.failures)}"
            for day in failed[:SHOWN_DAYS]
        ]
        lines += [f"and {len(failed) - SHOWN_DAYS} more days"] * (len(failed) > SHOWN_DAYS)
        raise DataError(
            "\n".join(lines),
            where=f"quarantined rows: {rows or 'none'}; report: validation/report.html in MLflow",
            remedy=";\n         ".join(
                dict.fromkeys(remedy for day in failed for remedy in day.remedies)
            ),
        )
    return tuple(day.day for day in days)
