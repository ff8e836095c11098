"""Live labels are those of the batch pipeline, on every row."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from model_code.errors import ConfigError, DataError
from model_code.features.batch import compute
from model_code.features.labels import LabelStream, round_trip
from model_code.live.feedback.frames import Sampled
from model_code.live.feedback.labels import Labelled, Labeller
from model_code.live.recorded import PlayedDay, played
from model_code.market.store import open_market
from model_code.settings import FeatureSpec
from tests.support.feedback import by_date, frames
from tests.support.market import DATES, hive

SPEC = FeatureSpec(feature_set="solo")
MID = FeatureSpec(feature_set="solo", label="mid-move", horizon_ms=250.0, cost_bps=0.1)


def day(tmp_path: Path, n: int = 1500) -> list[PlayedDay]:
    store = open_market(hive(tmp_path, n=n, dates=DATES[:1]))
    return [played(store, one)[0] for one in store.catalog()]


def batch_labels(one: PlayedDay, spec: FeatureSpec) -> tuple[list[int], list[int]]:
    """Stamp and label of each row."""
    rows = compute(one.ticks, spec)
    bid, ask = (one.ticks[name].to_numpy() for name in ("bid_price", "ask_price"))
    stream = LabelStream(spec)
    none_N = np.full(len(bid), -1, np.int8)
    label_N = np.concatenate(
        [stream.update(rows.timestamp_N, bid, ask, rows.segment_N, none_N), stream.finish()]
    )
    return rows.timestamp_N.tolist(), label_N.tolist()


def batch(days: list[PlayedDay], spec: FeatureSpec) -> dict[str, dict[int, int]]:
    """Label by symbol and stamp; stamps of a generated day are unique."""
    found = {}
    for one in days:
        stamp, label = batch_labels(one, spec)
        assert len(set(stamp)) == len(stamp)
        found[one.day.symbol] = dict(zip(stamp, label, strict=True))
    return found


def labels(found: list[Labelled]) -> dict[tuple[str, int, int], int]:
    made = {one.sampled.key: one.label for one in found}
    assert len(made) == len(found)
    return made


@pytest.mark.parametrize("spec", [SPEC, MID], ids=["round-trip", "mid-move"])
@pytest.mark.parametrize(("rows", "ask_every"), [(1, 1), (50, 1), (333, 7)])
def test_every_label_is_the_batch_pipelines(
    tmp_path: Path, spec: FeatureSpec, rows: int, ask_every: int
) -> None:
    days = day(tmp_path, 400 if rows == 1 else 1500)
    wanted, labeller, found = batch(days, spec), Labeller(spec), list[Labelled]()
    decisions = 0
    for frame in frames(days, rows=rows, ask_every=ask_every):
        found += labeller.take(frame.rows, frame.sampled)
        decisions += len(frame.sampled)
    found += labeller.finish()
    assert labeller.waiting == 0
    assert len(labels(found)) == decisions > 100
    for one in found:
        decision = one.sampled.decision
        assert one.label == wanted[decision.symbol][decision.local_ns]
    assert {one.label for one in found} >= {0, 1}


def test_rows_without_a_later_row_beyond_the_horizon_are_unlabelled(tmp_path: Path) -> None:
    days, labeller = day(tmp_path), Labeller(SPEC)
    everything = list(frames(days))
    early = [one for f in everything for one in labeller.take(f.rows, f.sampled)]
    late = labeller.finish()
    assert all(one.label >= 0 for one in early)
    assert late
    assert {one.label for one in late} == {-1}


def test_labels_do_not_look_across_a_gap(tmp_path: Path) -> None:
    days, labeller = day(tmp_path), Labeller(SPEC)
    first, second, *_ = frames(days, rows=200)
    before = labeller.take(first.rows, first.sampled)
    cut = labels(labeller.finish())
    after = labeller.take(second.rows, second.sampled)
    assert cut
    assert set(cut.values()) == {-1}  # the next rows are within the horizon, but may not be used
    assert not set(cut) & set(labels([*before, *after]))


def test_after_a_clock_that_goes_back_labels_are_right(tmp_path: Path) -> None:
    days, labeller = day(tmp_path, 400), Labeller(SPEC)
    wanted, again = batch(days, SPEC), list(frames(days, rows=100))
    for frame in again[:2]:
        labeller.take(frame.rows, frame.sampled)
    with pytest.raises(DataError, match="the clock goes back"):
        labeller.take(again[0].rows, again[0].sampled)
    labeller.finish()
    found = [one for frame in again for one in labeller.take(frame.rows, frame.sampled)]
    assert len(found) > 100
    for one in found:
        decision = one.sampled.decision
        assert one.label == wanted[decision.symbol][decision.local_ns]


def test_a_decision_may_come_after_its_label(tmp_path: Path) -> None:
    days = day(tmp_path, 300)
    (whole,) = frames(days, rows=10_000)
    labeller, other = Labeller(SPEC), Labeller(SPEC)
    together = labels(labeller.take(whole.rows, whole.sampled))
    assert other.take(whole.rows, []) == []
    assert labels(other.take([], whole.sampled)) == together
    assert labels(other.finish()) == labels(labeller.finish())


def test_a_decision_whose_row_is_missing_is_unlabelled(tmp_path: Path) -> None:
    first, *_ = frames(day(tmp_path, 300), rows=200)
    labeller = Labeller(SPEC)
    sampled: list[Sampled] = first.sampled[:3]
    assert labeller.take([], sampled) == []
    assert [one.label for one in labeller.finish()] == [-1, -1, -1]


def test_a_label_of_two_venues_is_refused() -> None:
    with pytest.raises(ConfigError, match="cross-venue cannot be labelled"):
        Labeller(FeatureSpec(feature_set="venues", label="cross-venue"))


@pytest.mark.slow
def test_labels_of_all_reference_ticks_are_those_of_the_batch_pipeline(binance: str) -> None:
    """Also with gaps, several rows of one stamp, and decisions that are not sampled."""
    compared, events = 0, 0
    for days, bounds in by_date(open_market(binance)):
        rows, labeller, found = (
            defaultdict[str, list[tuple[str, int, int]]](list),
            Labeller(SPEC),
            [],
        )
        for frame in frames(days, rows=1000, bounds=bounds, rate=0.25):
            for row in frame.rows:
                rows[row.symbol].append((row.symbol, row.session, row.sequence))
            found += labeller.take(frame.rows, frame.sampled)
        found += labeller.finish()
        wanted: dict[tuple[str, int, int], int] = {}
        for one in days:
            stamp, label = batch_labels(one, SPEC)
            bid, ask = (one.ticks[name].to_numpy() for name in ("bid_price", "ask_price"))
            segment_N = compute(one.ticks, SPEC).segment_N
            whole_N = round_trip(
                np.array(stamp), bid, ask, SPEC.horizon_ms, SPEC.cost_bps, segment_N
            )
            assert label == whole_N.tolist()
            wanted |= zip(rows[one.day.symbol], label, strict=True)
        made = labels(found)
        assert made == {key: wanted[key] for key in made}
        compared, events = compared + len(made), events + sum(one == 1 for one in made.values())
    assert compared > 70_000  # a quarter of 335,931 rows, less those that warm up
    assert 0.2 < events / compared < 0.45
