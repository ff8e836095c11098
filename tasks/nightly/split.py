"""Stage `split`: training, validation and test windows in time order."""

import datetime as dt

from model_code.artifacts import ArtifactRef
from model_code.features.dataset import FeatureTable
from model_code.features.split import split as choose_windows
from model_code.settings import SplitSpec
from tasks.caching.stage import RunRef, stage
from tasks.nightly.records import SplitWindows


@stage("split")
def split(run: RunRef, table: ArtifactRef, spec: SplitSpec, test_date: dt.date) -> SplitWindows:
    """Choose training, validation and test windows in time order, purged and embargoed."""
    chosen = choose_windows(FeatureTable.open(run.store, table), spec, test_date)
    with run.store.scratch() as scratch:
        folder = scratch / "split"
        folder.mkdir()
        chosen.save(folder)
        parts = {"train", "validation", "test"}
        return SplitWindows(
            windows=run.store.put(folder),
            summary=chosen.report.model_dump(mode="json", include=parts, exclude_none=True),
        )
