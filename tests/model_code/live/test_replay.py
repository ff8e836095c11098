"""The whole path against the batch pipeline: generated stores, all real ticks."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_code.errors import DataError
from model_code.features.batch import FeatureRows, compute
from model_code.features.incremental import FeatureState
from model_code.features.served import SOLO, SeenFeatures
from model_code.features.windows import valid_ends
from model_code.live import replay
from model_code.live.expected import expected
from model_code.live.path import LivePath
from model_code.live.reasons import Column, Reason
from model_code.live.recorded import Feed, PlayedDay, played
from model_code.live.replay import Played, play_store
from model_code.live.state import Group
from model_code.market.store import open_market
from model_code.settings import FeatureSpec
from tests.support.live import model
from tests.support.market import DATES, SYMBOLS, desk_csv, equities, fx, hive

PAIRED = SeenFeatures(feature_set="paired", leaders={SYMBOLS[1]: SYMBOLS[:1]})
VENUES = SeenFeatures(
    feature_set="venues",
    leaders={"EURUSD.fxcm": ("EURUSD.oanda",), "EURUSD.oanda": ("EURUSD.fxcm",)},
)
REAL = SeenFeatures(
    feature_set="paired",
    leaders={
        "BTCUSDT.usdm": ("BTCUSDT.spot", "ETHUSDT.spot"),
        "BTCUSD_PERP.coinm": ("BTCUSDT.spot", "ETHUSDT.spot"),
        "ETHUSDT.usdm": ("ETHUSDT.spot", "BTCUSDT.spot"),
        "ETHUSD_PERP.coinm": ("ETHUSDT.spot", "BTCUSDT.spot"),
    },
)


def play(uri: str, seen: SeenFeatures = SOLO, dates: int = 9, **options: Any) -> Played:
    store = open_market(uri)
    first = sorted({day.date for day in store.catalog()})[:dates]
    catalog = [day for day in store.catalog() if day.date in first]
    return play_store(store, catalog, model(seen), **options)


def windows(found: Played) -> int:
    return sum(len(one.ends) for date in found.outcomes for one in date.values())


@pytest.mark.parametrize("seen", [SOLO, PAIRED], ids=["solo", "paired"])
def test_a_generated_store_decides_the_same(tmp_path: Path, seen: SeenFeatures) -> None:
    found = play(hive(tmp_path, n=300), seen)
    ledger = found.path.ledger
    assert found.tally.compared == windows(found) == 4 * (300 - 63)
    assert ledger.columns[Column.DECIDED] == found.tally.compared
    assert ledger.reasons == {Reason.WARMING: 4 * 63}
    assert ledger.columns[Column.TRADES] > 200
    assert ledger.balanced()
    assert 0 < sum(found.tally.positive.values()) < found.tally.compared
    assert found.left_out == {}


def test_a_feed_with_the_source_s_numbers_decides_the_same() -> None:
    found = play("simulated:?days=1&minutes=0.2")
    assert found.tally.compared == windows(found) > 500


def test_the_desk_s_own_columns_are_played(tmp_path: Path) -> None:
    found = play(desk_csv(tmp_path, n=200), dates=1)
    assert found.tally.compared == 2 * (200 - 63)


def test_rows_that_validation_sets_aside_make_no_decision(tmp_path: Path) -> None:
    """Locked and one-sided quotes, repeats, trades without an aggressor."""
    found = play(equities(tmp_path, n=1500), dates=1)
    assert found.tally.compared == windows(found) > 1000
    reasons = found.path.ledger.reasons
    assert reasons[Reason.LOCKED_QUOTE] > 10
    assert reasons[Reason.PRICE_NOT_POSITIVE] > 0
    assert reasons[Reason.REPEAT] > 100
    assert found.path.ledger.balanced()


def test_crossed_rows_of_a_venue_are_put_aside(tmp_path: Path) -> None:
    found = play(fx(tmp_path, n=500), dates=1)
    assert found.path.ledger.reasons[Reason.CROSSED_QUOTE] > 20
    assert found.tally.compared == windows(found) > 200


def test_rows_judged_with_the_day_in_view_are_not_played(tmp_path: Path) -> None:
    uri = hive(tmp_path, n=300, symbols=SYMBOLS[:1], dates=DATES[:1])
    path = tmp_path / "quotes" / f"symbol={SYMBOLS[0]}" / f"date={DATES[0]}.parquet"
    table = pq.read_table(path)
    stamps = table["timestamp"].to_numpy().astype(np.int64)
    stamps[100] += 30 * 10**9
    bid, ask = (table[name].to_numpy().copy() for name in ("bid_price", "ask_price"))
    bid[200], ask[200] = 50.0, 50.01
    for place, values in enumerate((pa.array(stamps, pa.timestamp("ns", "UTC")), None, bid, ask)):
        if values is not None:
            table = table.set_column(place, table.column_names[place], pa.array(values))
    pq.write_table(table, path)
    found = play(uri)
    assert found.left_out["clock_back"] == 1
    assert found.left_out["price_jump"] == 1
    assert found.tally.compared == windows(found)
    assert found.path.ledger.reordered == 0


def test_a_leader_without_ticks_is_as_absent_as_in_the_batch(tmp_path: Path) -> None:
    uri = hive(tmp_path, n=150, symbols=SYMBOLS[1:], dates=DATES[:1])
    assert play(uri, PAIRED).tally.compared == 150 - 63


def test_questions_may_be_asked_one_by_one_and_on_a_clock(tmp_path: Path) -> None:
    seen: list[int] = []
    ticks = iter(range(10**6))
    uri = hive(tmp_path, n=100, symbols=SYMBOLS[:1], dates=DATES[:1])
    found = play(uri, batch=1, pacer=lambda: seen.append, clock=lambda: next(ticks))
    assert len(seen) == found.path.ledger.taken
    assert seen == sorted(seen)
    assert len(found.tally.latencies_ns) == 37
    assert min(found.tally.latencies_ns) > 0


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("feature", "columns of the window that differ: 3"),
        ("missing", "the live path made no decision"),
        ("extra", "the batch makes no decision"),
        ("other", "the live path decided at"),
    ],
)
def test_a_difference_stops_the_replay_at_its_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str, message: str
) -> None:
    uri = hive(tmp_path, n=100, symbols=SYMBOLS[:1], dates=DATES[:1])

    def harmed(*arguments: Any) -> Any:
        found = expected(*arguments)
        one = found[SYMBOLS[0]]
        if harm == "feature":
            one.rows.features_NF[80, 3] += 1e-6
        elif harm == "missing":
            one.ends = np.append(one.ends, 99)
        elif harm == "extra":
            one.ends = one.ends[:-1]
        else:
            one.ends = one.ends[1:]
        return found

    monkeypatch.setattr(replay, "expected", harmed)
    with pytest.raises(DataError, match="differ") as error:
        play(uri)
    assert message in error.value.what
    assert error.value.where.startswith(f"{SYMBOLS[0]}, validated row ")
    if harm == "feature":
        assert "validated row 80, 2024-08-08T12:00:0" in error.value.where


def test_nothing_to_play_is_an_error(tmp_path: Path) -> None:
    store = open_market(hive(tmp_path, n=10))
    with pytest.raises(DataError, match="no days"):
        play_store(store, [], model())


def test_real_venues_decide_the_same(fx: str) -> None:
    found = play(fx, VENUES, dates=1)
    assert found.tally.compared == windows(found) == 9_986
    assert found.path.ledger.reasons[Reason.CROSSED_QUOTE] > 0
    assert found.path.ledger.balanced()


class _Both(FeatureState):
    """Keeps each row of features, and gives a second set the same ticks."""

    def follow(self, solo: FeatureState) -> None:
        self.solo, self.rows, self.rows_solo, self.ends = solo, [], [], []  # type: ignore[var-annotated]

    def update(self, *row: Any) -> Any:
        features_F = super().update(*row)
        self.rows.append(features_F.copy())
        self.rows_solo.append(self.solo.update(*row).copy())
        if self.ready:
            self.ends.append(len(self.rows) - 1)
        return features_F


def both_sets(days: Sequence[PlayedDay], group: Group) -> LivePath:
    for one in group.instruments.values():
        features: Any = one.features
        features.__class__ = _Both
        features.follow(FeatureState(FeatureSpec(feature_set="solo")))
    live = LivePath(group, threshold=0.5, model_version=1)
    for tick in Feed().messages(days):
        live.take(tick, tick.local_ns)
    live.stop()
    return live


def test_every_real_tick_of_both_sets_equals_the_batch_bit_for_bit(binance: str) -> None:
    store = open_market(binance)
    taken = quotes = 0
    for date in DATES:
        catalog = [day for day in store.catalog() if day.date == date]
        days = [played(store, day)[0] for day in catalog]
        symbols = [day.symbol for day in catalog]
        group = Group(REAL, symbols, 10.0, trade_band_bps=math.inf)
        live = both_sets(days, group)
        assert live.ledger.balanced()
        assert live.ledger.reasons[Reason.STOPPED] == len(symbols)
        assert live.ledger.columns[Column.DEAD_LETTERED] == 0
        ticks = {day.day.symbol: store.read(day.day) for day in days}
        solo = {name: compute(ticks[name], FeatureSpec(feature_set="solo")) for name in symbols}
        for name in symbols:
            others = [solo[other].states_N for other in REAL.leaders.get(name, ())]
            paired = compute(ticks[name], FeatureSpec(feature_set="paired"), others)
            equals(group.instruments[name].features, paired, solo[name])
        taken += live.ledger.taken
        quotes += live.ledger.taken - live.ledger.columns[Column.TRADES]
    assert (quotes, taken - quotes) == (335_931, 78_638)


def equals(live: Any, paired: FeatureRows, solo: FeatureRows) -> None:
    for rows, batch in ((live.rows, paired), (live.rows_solo, solo)):
        assert np.array_equal(np.array(rows).view(np.uint32), batch.features_NF.view(np.uint32))
    no_label_N = np.zeros(len(paired.segment_N), np.int8)
    assert live.ends == valid_ends(paired.segment_N, no_label_N).tolist()
