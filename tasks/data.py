"""Stages from the market store to windows: find, validate, features, split."""

import datetime as dt

import pyarrow.parquet as pq
from prefect import task

from model_code.artifacts import ArtifactRef
from model_code.errors import DataError
from model_code.features import dataset, split
from model_code.market.schema import InstrumentDay
from model_code.market.selection import select
from model_code.market.store import MarketStore, open_market
from model_code.settings import FeatureSpec, NightlySpec, SplitSpec, ValidationSpec
from tasks.results import CleanDay, Plan, SourceDay, SplitWindows, ValidatedDay
from tasks.stage import RETRIES, RunRef, stage

SIMULATED = "simulated:"  # the market of a first run, without data


@task(name="find days", **RETRIES)  # never cached: it is what looks at the source
def find_days(spec: NightlySpec) -> Plan:
    """Choose the instrument-days and hash their source bytes."""
    uri = spec.market or SIMULATED
    store = open_market(uri)
    chosen = select(
        store.catalog(),
        instruments=spec.instruments,
        train_days=spec.train_days,
        test_date=spec.test_date,
        where=uri,
    )
    return Plan(
        train=tuple(_source(store, day) for day in chosen.train),
        test=tuple(_source(store, day) for day in chosen.test),
        warnings=chosen.warnings,
    )


def _source(store: MarketStore, day: InstrumentDay) -> SourceDay:
    return SourceDay(
        market=store.uri,
        date=day.date,
        symbol=day.symbol,
        digest=store.digest(day),
        simulated=store.simulated,
    )


@stage(
    "validate",
    code=["tasks.validate", "model_code.market.store"],
    run_name="validate {source.symbol} {source.date}",
)
def validate(run: RunRef, source: SourceDay, spec: ValidationSpec) -> ValidatedDay:
    """Read one instrument-day, quarantine faulty rows, judge the day."""
    from tasks.validate import validate_day  # Great Expectations takes seconds to import

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
    """Let clean ticks through if every day passed.

    Raises:
        DataError: some day failed; the message says which, why, and where its rows lie.
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


@stage("features", code=["model_code.features.dataset"])
def build_features(
    run: RunRef, days: tuple[CleanDay, ...], spec: FeatureSpec, simulated: bool
) -> ArtifactRef:
    """Compute the 16 features and the label of every clean row into one (N, 16) array."""
    paths = [(InstrumentDay(day.date, day.symbol), day.ticks.open()) for day in days]
    with run.store.scratch() as scratch:
        out = scratch / "features"
        dataset.build(paths, spec, out, simulated=simulated)
        return run.store.put(out)


@stage("split", code=["model_code.features.split"])
def split_windows(
    run: RunRef, table: ArtifactRef, spec: SplitSpec, test_date: dt.date
) -> SplitWindows:
    """Choose training, validation and test windows in time order, purged and embargoed."""
    chosen = split.split(dataset.FeatureTable.load(table.open()), spec, test_date)
    with run.store.scratch() as scratch:
        folder = scratch / "split"
        folder.mkdir()
        chosen.save(folder)
        parts = {"train", "validation", "test"}
        return SplitWindows(
            windows=run.store.put(folder),
            summary=chosen.report.model_dump(mode="json", include=parts),
        )
