"""Stage `judge`: all rivals over all test dates and windows."""

import numpy as np

from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.benchmark import walkforward
from model_code.benchmark.walkforward import Judgement, Pool, Rival
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.training.threshold import decide
from tasks.caching.stage import RunRef, stage
from tasks.walkforward.records import TestDate, Walker


@stage("judge")
def judge(
    run: RunRef,
    table: ArtifactRef,
    dates: tuple[TestDate, ...],
    walkers: tuple[Walker, ...],
) -> Judgement:
    """Pool the dates' windows and judge every rival on them; the first is the model."""
    return walkforward.judge(*pooled(run.store, table, dates, walkers))


def pooled(
    store: ArtifactStore,
    table: ArtifactRef,
    dates: tuple[TestDate, ...],
    walkers: tuple[Walker, ...],
) -> tuple[Pool, list[Rival]]:
    """The windows of all dates, and every rival's answers."""
    rows = FeatureTable.open(store, table)
    ends_N = np.concatenate(
        [Split.load(store.open(date.split.windows)).test_ends for date in dates]
    )
    pool = Pool(
        label_N=np.asarray(rows.label_N[ends_N]),
        timestamp_ns_N=np.asarray(rows.timestamp_N[ends_N]),
        symbol_N=np.array(rows.meta.symbols)[rows.symbol_N[ends_N]],
        earned_bps_N=np.concatenate([np.load(store.open(date.earned)) for date in dates]),
    )
    return pool, [_rival(store, walker) for walker in walkers]


def _rival(store: ArtifactStore, walker: Walker) -> Rival:
    found = [np.load(store.open(fit.probability)) for fit in walker.fits]
    decided = [
        decide(values, fit.threshold) for values, fit in zip(found, walker.fits, strict=True)
    ]
    return Rival(
        name=walker.name,
        inputs=walker.inputs,
        against=walker.against,
        probability_N=np.concatenate(found),
        decided_N=np.concatenate(decided),
        seconds=sum(fit.seconds for fit in walker.fits),
    )
