"""Stage `features`: the features and the label of every clean row, as one table."""

from model_code.artifacts import ArtifactRef
from model_code.features import dataset
from model_code.features.dataset import FeatureTable
from model_code.market.schema import InstrumentDay
from model_code.settings import FeatureSpec, Leaders
from tasks.caching.opened_market import opened
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import CleanDay, Supplements


def _facts(run: RunRef, table: ArtifactRef) -> str:
    rows = FeatureTable.load(run.store.open(table))
    return f"{len(rows.label_N):,} rows, feature set {rows.meta.spec.chosen_set}"


@stage("features", facts=_facts)
def features(
    run: RunRef,
    days: tuple[CleanDay, ...],
    spec: FeatureSpec,
    leaders: Leaders,
    simulated: bool,
    supplements: Supplements | None = None,
) -> ArtifactRef:
    """Compute the 16 features and the label of every clean row into one (N, 16) array.

    The set's depth rows or exogenous series are read from the store that `supplements` names.
    """
    market = opened(supplements.market) if supplements else None
    paths = [(InstrumentDay(day.date, day.symbol), run.store.open(day.ticks)) for day in days]
    with run.store.scratch() as scratch:
        out = scratch / "features"
        dataset.build(paths, spec, out, simulated=simulated, leaders=leaders, market=market)
        return run.store.put(out)
