"""Stage `bound profit`: what acting on each test window could have earned at best."""

import datetime as dt

import numpy as np

from model_code.artifacts import ArtifactRef
from model_code.benchmark.profit import best_cases
from model_code.features.dataset import FeatureTable
from model_code.features.split import Split
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import SplitWindows


@stage("bound profit", run_name="bound profit {date}")
def bound_profit(
    run: RunRef,
    table: ArtifactRef,
    split: SplitWindows,
    date: dt.date,  # noqa: ARG001
    delay_ms: float,
) -> ArtifactRef:
    """Best case (.npy, float64, basis points) of the test windows, traded `delay_ms` later."""
    rows, windows = (
        FeatureTable.open(run.store, table),
        Split.load(run.store.open(split.windows)),
    )
    with run.store.scratch() as scratch:
        path = scratch / "earned.npy"
        np.save(path, best_cases(rows, windows.test_ends, delay_ms))
        return run.store.put(path)
