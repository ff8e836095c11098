"""Stage `judge`: all rivals over all test dates and windows."""

import numpy as np

from model_code.artifacts import ArtifactRef
from model_code.benchmark import walkforward
from model_code.benchmark.walkforward import Judgement, Pool, Rival
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from model_code.training.threshold import decide
from tasks.caching.stage import RunRef, stage
from tasks.walkforward.records import TestDate, Walker


@stage("judge")
def judge(
    run: RunRef,  # noqa: ARG001
    table: ArtifactRef,
    dates: tuple[TestDate, ...],
    walkers: tuple[Walker, ...],
) -> Judgement:
    """Pool the dates' windows and judge every rival on them; the first is the model."""
    return walkforward.judge(*pooled(table, dates, walkers))


def pooled(
    table: ArtifactRef, dates: tuple[TestDate, ...], walkers: tuple[Walker, ...]
) -> tuple[Pool, list[Rival]]:
    """The windows of all dates, and every rival's answers."""
    rows = FeatureTable.load(table.open())
    ends_N = np.concatenate([Split.load(date.split.windows.open()).test_ends for date in dates])
    pool = Pool(
        label_N=np.asarray(rows.label_N[ends_N]),
        timestamp_ns_N=np.asarray(rows.timestamp_N[ends_N]),
        symbol_N=np.array(rows.meta.symbols)[rows.symbol_N[ends_N]],
        earned_bps_N=np.concatenate([np.load(date.earned.open()) for date in dates]),
    )
    return pool, [_rival(walker) for walker in walkers]


def _rival(walker: Walker) -> Rival:
    found = [np.load(fit.probability.open()) for fit in walker.fits]
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
