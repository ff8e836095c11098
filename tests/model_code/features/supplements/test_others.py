"""Which other instruments of a date an instrument needs, and how their ticks are read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.features.batch import FeatureStream, compute
from model_code.features.supplements.others import LeaderStates, needed, read
from model_code.settings import FeatureSpec
from tests.support.market import DATES, SYMBOLS, epoch_ns, ticks

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


SILENT_S = 30  # longer than the reset gap


@pytest.mark.parametrize("chunk_rows", [1, 7, 250, 10_000])
@pytest.mark.parametrize(("own_ms", "leader_ms"), [(50, 50), (50, 3), (3, 50), (2000, 1)], ids=str)
def test_a_leader_read_along_gives_the_bits_of_its_whole_day(
    tmp_path: Path, chunk_rows: int, own_ms: int, leader_ms: int
) -> None:
    own, leader = (
        paced(ticks(1500, seed, symbol), step_ms)
        for seed, symbol, step_ms in ((1, SYMBOLS[0], own_ms), (2, SYMBOLS[1], leader_ms))
    )
    path = tmp_path / "leader.parquet"
    pq.write_table(leader, path)
    spec = FeatureSpec()
    whole = compute(own, spec, [compute(leader, spec.with_set("solo")).states_N])
    along = FeatureStream(spec, [LeaderStates(path, spec, chunk_rows)])
    found = [along.update(batch).features_NF for batch in own.to_batches(max_chunksize=400)]
    assert np.concatenate(found).tobytes() == whole.features_NF.tobytes()
    assert not np.array_equal(whole.features_NF, compute(own, spec).features_NF)  # it is seen


def paced(table: pa.Table, step_ms: int) -> pa.Table:
    """The ticks with this mean step, two to an instant now and then, and one long silence."""
    rng = np.random.default_rng(step_ms)
    steps = rng.integers(0, 2 * step_ms + 1, table.num_rows) * 1_000_000
    steps[table.num_rows // 2] += SILENT_S * 10**9
    stamps = pa.array(epoch_ns(DATES[0]) + steps.cumsum(), table.schema.field(0).type)
    return table.set_column(0, table.schema.field(0), stamps)


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
