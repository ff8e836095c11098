"""Stage `find days`: choose the instrument-days of a nightly and hash their source bytes.

The home folder remembers the hashes: `tasks/caching/file_digests.py`.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from prefect import task

from model_code.errors import MarketChoiceError, MarketError
from model_code.market.calendar import silences
from model_code.market.readers.files import HashFile, hash_file, summarize
from model_code.market.schema import InstrumentDay
from model_code.market.selection import select
from model_code.market.store import MarketStore, open_market
from model_code.settings import NightlySpec
from tasks.caching.file_digests import FileDigests
from tasks.caching.opened_market import share
from tasks.caching.refresh import is_refreshing
from tasks.caching.stage import RETRIES, announced
from tasks.nightly.records import Plan, SourceDay

SIMULATED = "simulated:"  # default market: a first run needs no data


def require_market(uri: str) -> None:
    """Check that something is at the URI; a server that is away is left to `find days`.

    Raises:
        MarketChoiceError: there is nothing, or no supported layout.
        ConfigError: a `simulated:` URI with an unknown or invalid parameter.
    """
    try:
        open_market(uri)
    except MarketChoiceError:
        raise
    except MarketError:
        return


@task(**announced("find days"), **RETRIES)  # never cached: it reads the source
def find_days(spec: NightlySpec, home: Path | None = None) -> Plan:
    """Choose the instrument-days and hash their source bytes.

    Args:
        spec: of the nightly.
        home: the home folder, which remembers hashes; None: hash every chosen file.
    """
    if home is None:
        return _plan(spec, hash_file)
    with closing(FileDigests(home, again=is_refreshing())) as digests:
        return _plan(spec, digests)


def _plan(spec: NightlySpec, hash_one: HashFile) -> Plan:
    uri = spec.market or SIMULATED
    store = open_market(uri, hash_one)
    share(store)
    catalog = store.catalog()
    chosen = select(
        catalog,
        instruments=spec.instruments,
        train_days=spec.train_days,
        test_date=spec.test_date,
        allow_missing=spec.allow_missing,
        today=dt.datetime.now(dt.UTC).date(),
        where=uri,
    )
    days = (*chosen.train, *chosen.test)
    return Plan(
        train=tuple(_source(store, day, spec.calendar) for day in chosen.train),
        test=tuple(_source(store, day, spec.calendar) for day in chosen.test),
        warnings=(*chosen.warnings, *summarize(store.passed_over())),
        supplements=dict(entry for day in days for entry in supplements_of(store, day)),
    )


def supplements_of(store: MarketStore, day: InstrumentDay) -> Iterator[tuple[str, str]]:
    """What the store has beside ticks, with digests; depth rows are of one instrument-day."""
    for name, digest in store.supplements(day).items():
        yield f"depth {day.symbol} {day.date}" if name == "depth" else name, digest


def _source(store: MarketStore, day: InstrumentDay, calendar: str) -> SourceDay:
    return SourceDay(
        market=store.uri,
        date=day.date,
        symbol=day.symbol,
        digest=store.digest(day),
        simulated=store.simulated,
        profile=store.statement.profile,
        silences=silences(calendar, day.date),
    )
