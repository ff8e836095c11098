"""What the features of one instrument-day depend on."""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from model_code.artifacts import ArtifactRef
from model_code.features import batch
from model_code.settings import FeatureSpec
from tasks.caching.stage import RunRef
from tasks.nightly.features import features, others_of
from tasks.nightly.records import CleanDay
from tests.support.market import DATES, SYMBOLS, ticks

LEADER, FOLLOWER = SYMBOLS
SPEC = FeatureSpec()


def day(symbol: str, date: dt.date) -> CleanDay:
    ticks = ArtifactRef.of(name=f"{symbol}-{date}", sha256="0" * 64)
    return CleanDay(date=date, symbol=symbol, ticks=ticks)


def test_others_are_of_the_same_date_and_only_those_needed() -> None:
    days = tuple(day(symbol, date) for date in DATES for symbol in (*SYMBOLS, "CCC.test"))
    follower = day(FOLLOWER, DATES[1])
    assert others_of(follower, days, SPEC, (LEADER,)) == (day(LEADER, DATES[1]),)
    assert others_of(follower, days, SPEC, ("absent", LEADER)) == (day(LEADER, DATES[1]),)
    assert others_of(follower, days, SPEC, ()) == ()
    assert others_of(follower, days[:3], SPEC, (LEADER,)) == ()  # not there on that date


def test_the_stage_stores_the_features_that_the_leader_is_seen_in(
    run: RunRef, tmp_path: Path
) -> None:
    stored = {}
    for symbol in SYMBOLS:
        path = tmp_path / f"{symbol}.parquet"
        pq.write_table(ticks(300, 1, symbol), path)
        stored[symbol] = CleanDay(date=DATES[0], symbol=symbol, ticks=run.store.put(path))
    found = features.fn(run, stored[FOLLOWER], (stored[LEADER],), SPEC, (LEADER,))
    there = batch.compute(ticks(300, 1, LEADER), SPEC.with_set("solo")).states_N
    expected = batch.compute(ticks(300, 1, FOLLOWER), SPEC, [there]).features_NF
    assert found.folder.name == f"{FOLLOWER}-{DATES[0]}"
    assert (found.meta.rows, found.meta.symbol) == (300, FOLLOWER)
    stored_NF = np.load(run.store.open(found.folder) / "features.npy")
    np.testing.assert_array_equal(stored_NF, expected)
