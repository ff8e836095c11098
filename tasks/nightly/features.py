"""Stage `features`: the features and the label of every clean row of one instrument-day."""

from urllib.parse import quote

from model_code.features import shard
from model_code.features.shard import Shard
from model_code.features.supplements.others import needed
from model_code.market.schema import InstrumentDay
from model_code.settings import FeatureSpec
from tasks.caching.opened_market import opened
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import CleanDay, Supplements


def _facts(_: RunRef, found: Shard) -> str:
    return f"{found.meta.rows:,} rows in {found.meta.segments:,} segments"


@stage("features", facts=_facts, run_name="features {day.symbol} {day.date}")
def features(
    run: RunRef,
    day: CleanDay,
    others: tuple[CleanDay, ...],
    spec: FeatureSpec,
    leaders: tuple[str, ...],
    supplements: Supplements | None = None,
) -> Shard:
    """Compute the 16 features and the label of one instrument-day's clean rows.

    The key holds what they depend on and nothing of other dates, so that a later night finds them.

    Args:
        run: where it is stored.
        day: the instrument-day.
        others: of the same date, the instruments that features or label need.
        spec: feature set and label.
        leaders: whom the instrument looks at, the strongest first.
        supplements: the day's depth rows or the exogenous tables that the set needs.
    """
    with run.store.scratch() as scratch:
        out = scratch / f"{quote(day.symbol, safe='')}-{day.date}"  # a symbol may hold "/"
        meta = shard.build(
            InstrumentDay(day.date, day.symbol),
            run.store.open(day.ticks),
            spec,
            out,
            leaders=leaders,
            others={other.symbol: run.store.open(other.ticks) for other in others},
            market=opened(supplements.market, run.flow_run_id) if supplements else None,
        )
        return Shard(meta=meta, folder=run.store.put(out))


def others_of(
    day: CleanDay, days: tuple[CleanDay, ...], spec: FeatureSpec, leaders: tuple[str, ...]
) -> tuple[CleanDay, ...]:
    """The clean days of the same date that the instrument-day's features or label need."""
    present = {other.symbol: other for other in days if other.date == day.date}
    return tuple(present[name] for name in needed(day.symbol, present, spec, leaders))
