"""What the observer counts."""

from itertools import pairwise

import pytest

from infra.live.monitoring import observer as observers
from infra.live.monitoring.observer import HANDOVER, SERVICE, STAGES, TOTAL, TRANSPORT
from model_code.live.histogram import MS
from tests.support.live import NOON
from tests.support.market import SYMBOLS
from tests.support.observed import Desk, busy


def test_each_stage_and_the_whole_is_counted_once_per_decision() -> None:
    desk = Desk()
    decisions, _ = desk.round(0.4, SYMBOLS)
    for one in decisions:
        desk.observer._count(one, desk.now_ns)
    durations = desk.observer.durations
    assert {sum(one.counts) for one in durations.values()} == {2}
    for stage in STAGES:
        wanted = sum(getattr(one.latency, stage) for one in decisions)
        assert durations[stage].total_ns == wanted
    whole = sum(one.latency.total for one in decisions)
    assert durations[SERVICE].total_ns == whole > 0
    assert durations[TOTAL].total_ns == sum(desk.now_ns - one.local_ns for one in decisions)
    assert durations[TOTAL].total_ns == pytest.approx(4 * MS, abs=MS)
    assert durations[TRANSPORT].total_ns == pytest.approx(4 * MS, abs=MS)
    assert durations[HANDOVER].total_ns == 0  # the clock of the path stands


def test_stamps_of_recorded_days_have_no_latency_from_the_tick() -> None:
    desk = Desk()
    decisions, _ = desk.round(0.4)
    desk.wait(61_000)
    desk.observer._count(decisions[0], desk.now_ns)
    assert desk.observer.far == 1
    assert sum(desk.observer.durations[TOTAL].counts) == 0
    assert sum(desk.observer.durations[SERVICE].counts) == 1


def test_answers_versions_and_flags() -> None:
    seen = busy().observer
    assert seen.decided == 3
    assert seen.answers == {
        (SYMBOLS[0], 7, False): 1,
        (SYMBOLS[0], 7, True): 1,
        (SYMBOLS[1], 8, False): 1,
    }
    assert seen.versions == {7: 2, 8: 1}
    assert seen.flags == {"fallback": 1}
    (opportunity,) = seen.opportunities
    assert (opportunity.symbol, opportunity.probability) == (SYMBOLS[0], 0.75)


def test_a_point_holds_a_quarter_of_a_second() -> None:
    first, second = (busy().observer.instruments[symbol] for symbol in SYMBOLS)
    ((at_ms, price, probability, threshold, opportunities, decisions),) = first.points
    assert at_ms == NOON // MS + 1000
    assert price == pytest.approx((first.bid_price + first.ask_price) / 2)
    assert (probability, threshold, opportunities, decisions) == (0.75, 0.5, 1, 2)
    assert [point[0] for point in second.points] == [NOON // MS + 1250]


def test_points_are_bounded() -> None:
    desk = Desk()
    decisions, _ = desk.round(0.4)
    for step in range(observers.KEPT_POINTS + 5):
        desk.observer._keep(decisions[0], (1.0, 2.0), step * observers.POINT_MS * MS)
    points = desk.observer.instruments[SYMBOLS[0]].points
    assert len(points) == observers.KEPT_POINTS
    assert points[0][0] == 5 * observers.POINT_MS


def test_more_symbols_than_are_shown_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "MOST_SYMBOLS", 1)
    seen = busy().observer
    assert list(seen.instruments) == [SYMBOLS[0]]
    assert seen.hidden == {SYMBOLS[1]}
    assert seen.answers["other", 8, False] == 1


def test_a_tick_that_came_sets_the_time_and_a_copy_is_made_each_five_seconds() -> None:
    desk = Desk()
    desk.update(0.0)
    at_ns = desk.observer.tick_at_ns
    assert at_ns == desk.now_ns
    desk.wait(1000)
    desk.update(1.0)
    assert desk.observer.tick_at_ns == at_ns
    desk.decide(0.4)
    for second in range(2, 80):
        desk.update(float(second))
    assert desk.observer.tick_at_ns == desk.now_ns
    times = [one.at_s for one in desk.observer.copies]
    assert len(times) == observers.COPIES
    assert {later - earlier for earlier, later in pairwise(times)} == {5.0}
