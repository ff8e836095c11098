"""Which other instruments of a date an instrument needs, and how their ticks are read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.features.supplements.others import needed, read
from model_code.settings import FeatureSpec
from tests.support.market import ticks

VENUES = FeatureSpec(feature_set="venues", label="cross-venue")
PRESENT = ("A", "B", "C", "E.x", "E.y", "E.z")


@pytest.mark.parametrize(
    ("symbol", "spec", "leaders", "found"),
    [
        ("A", FeatureSpec(), (), ()),
        ("A", FeatureSpec(), ("C", "B"), ("B", "C")),
        ("A", FeatureSpec(), ("C", "gone", "B"), ("C",)),  # paired looks at two
        ("A", FeatureSpec(feature_set="solo"), ("B",), ()),
        ("A", FeatureSpec(feature_set="depth"), ("B",), ()),
        ("E.x", FeatureSpec(feature_set="venues"), ("E.z", "E.y"), ("E.z",)),
        ("E.x", VENUES, ("E.z",), ("E.y", "E.z")),  # the label sees every venue
    ],
)
def test_needed_are_the_leaders_looked_at_and_the_venues_of_the_label(
    symbol: str, spec: FeatureSpec, leaders: tuple[str, ...], found: tuple[str, ...]
) -> None:
    assert needed(symbol, PRESENT, spec, leaders) == found


def test_reading_needs_memory_for_a_batch_and_not_for_the_file(tmp_path: Path) -> None:
    table, peaks = ticks(20_000), []
    for copies in (1, 10):
        path = tmp_path / f"{copies}.parquet"
        pq.write_table(
            pa.concat_tables([table] * copies), path, row_group_size=20_000, compression="none"
        )
        before = pa.total_allocated_bytes()
        peaks.append(max(pa.total_allocated_bytes() - before for _ in read(path, 1000)))
    assert peaks[1] < 1.1 * peaks[0] < path.stat().st_size / 2
