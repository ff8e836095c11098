"""Stage `find leaders`: which other instruments each instrument looks at."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from model_code.errors import DataError
from model_code.features.leaders import by_name, suggest
from model_code.features.venues import Quotes
from model_code.settings import FeatureSpec, Leaders
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import CleanDay, Leading


@stage("find leaders")
def find_leaders(
    run: RunRef,
    days: tuple[CleanDay, ...],
    spec: FeatureSpec,
    test_date: dt.date | None,
) -> Leading:
    """Name the leaders: from the specification, from the names, or measured.

    The measurement uses the newest date before the test date. Only instruments with ticks on the
    test date may lead. Without a test date the newest date stands for both.
    """
    symbols = tuple(sorted({day.symbol for day in days}))
    if spec.leaders is not None:
        return Leading(leaders=_known(spec.leaders, symbols), source="the specification")
    named = by_name(spec.chosen_set, symbols)
    if named is not None:
        return Leading(leaders=named, source="the instruments' names")
    newest = max(day.date for day in days if test_date is None or day.date < test_date)
    quotes = {day.symbol: _quotes(run.store.open(day.ticks)) for day in days if day.date == newest}
    present = frozenset(day.symbol for day in days if day.date == (test_date or newest))
    table = suggest(quotes, present)
    return Leading(leaders=table.leaders, source=f"measured on {newest}", table=table)


def _quotes(ticks: Path) -> Quotes:
    table = pq.read_table(ticks, columns=["timestamp", "bid_price", "ask_price"])
    time, bid, ask = (table.column(name) for name in table.column_names)
    return Quotes(time.cast(pa.int64()).to_numpy(), bid.to_numpy(), ask.to_numpy())


def _known(leaders: Leaders, symbols: tuple[str, ...]) -> Leaders:
    named = {*leaders, *(other for others in leaders.values() for other in others)}
    unknown = sorted(named - set(symbols))
    if unknown:
        raise DataError(
            f"features.leaders names {', '.join(unknown)}, which the store does not have",
            where=f"instruments: {', '.join(symbols)}",
            remedy="correct the names, or leave features.leaders out: leaders are then measured",
        )
    selfish = sorted(name for name, others in leaders.items() if name in others)
    if selfish:
        raise DataError(
            f"features.leaders lets {', '.join(selfish)} look at itself",
            remedy="name other instruments only",
        )
    return leaders
