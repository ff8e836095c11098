"""What Binance's own numbers say is missing, found in one instrument's events."""

import json

import pytest

from model_code.live.binance import MOST_MISSING, Count, Instrument
from model_code.live.messages import Tick
from model_code.market.level2.frames import BookSnapshot, TradeFrame, parse_frame
from tests.support.exchange import gaps, session


def take(frames: list[str], one: Instrument) -> list[Tick]:
    found = [one.take(parse_frame(frame), place) for place, frame in enumerate(frames)]
    return [tick for tick in found if tick is not None]


def started(futures: bool = False) -> tuple[Instrument, list[str]]:
    """An instrument with its book, and the frames that follow it."""
    frames, book = session("AAA", 300, futures=futures)
    one = Instrument("AAA.spot")
    one.begin(7)
    event = parse_frame(book.answer())
    assert isinstance(event, BookSnapshot)
    first = next(place for place, frame in enumerate(frames) if "depthUpdate" in frame)
    take(frames[: first + 1], one)
    assert one.needs_snapshot
    assert one.snapshot(event)
    assert not one.needs_snapshot
    return one, frames[first + 1 :]


def places(frames: list[str], kind: str) -> list[int]:
    return [place for place, frame in enumerate(frames) if f"@{kind}" in frame]


@pytest.mark.parametrize("futures", [False, True])
def test_a_sound_session_has_no_gap(futures: bool) -> None:
    one, frames = started(futures)
    ticks = take(frames, one)
    assert len(ticks) == len(frames) - len(places(frames, "depth"))
    assert gaps(ticks) == []
    assert one.book.complete
    assert one.counts[Count.QUOTE_GAPS] == one.counts[Count.DEPTH_GAPS] == 0


@pytest.mark.parametrize("futures", [False, True])
def test_a_lost_depth_event_is_a_gap_and_needs_a_new_book(futures: bool) -> None:
    one, frames = started(futures)
    lost = places(frames, "depth")[20]
    ticks = take([*frames[:lost], *frames[lost + 1 :]], one)
    assert one.counts[Count.DEPTH_GAPS] == 1
    assert len(gaps(ticks)) == 1
    assert one.needs_snapshot


def test_a_lost_quote_that_was_the_newest_of_a_book_is_a_gap() -> None:
    found = 0
    for number in range(20, 40):
        one, frames = started()
        depths = places(frames, "depth")
        lost = max(place for place in places(frames, "bookTicker") if place < depths[number])
        if lost < depths[number - 1]:
            continue  # no quote since the book before
        take([*frames[:lost], *frames[lost + 1 :]], one)
        found += 1
        assert one.counts[Count.QUOTE_GAPS] == 1
        assert not one.book.complete  # asked for again
    assert found > 5


def test_a_late_quote_is_left_out_and_is_a_gap_but_a_repeat_is_not() -> None:
    one, frames = started()
    first, second = places(frames, "bookTicker")[:2]
    order = [frames[second], frames[first], frames[second], frames[second]]
    ticks = take(order, one)
    assert len(ticks) == 1
    assert one.counts[Count.LATE] == one.counts[Count.QUOTE_GAPS] == 1
    assert one.counts[Count.REPEATED] == 2


def test_a_new_connection_takes_nothing_that_is_older() -> None:
    one, frames = started()
    before = take(frames[:100], one)
    one.begin(8)
    again = take(frames[:150], one)
    assert len({(tick.session, tick.sequence) for tick in [*before, *again]}) == len(
        [*before, *again]
    )
    assert {tick.session for tick in again} == {8}
    assert len([*before, *again]) == 150 - len(places(frames[:150], "depth"))
    assert again[0].sequence == 1 + one.counts[Count.QUOTE_GAPS] or again[0].sequence == 1


def test_ids_that_begin_anew_are_noticed_after_a_thousand_frames() -> None:
    one = Instrument("AAA.spot")
    take(session("AAA", 50, first=10**6)[0], one)
    old = [frame for frame in session("AAA", 5000, seed=3)[0] if "@book" in frame]
    ticks = take(old, one)
    assert one.counts[Count.RENUMBERED] == 1
    assert len(ticks) == len(old) - 1001


def test_a_snapshot_for_a_complete_book_is_not_used() -> None:
    one, _ = started()
    assert one.snapshot(BookSnapshot("", 10**9, (), ()))
    assert one.counts[Count.SNAPSHOTS] == 1


def test_a_stamp_that_is_no_time_is_left_out() -> None:
    frames, _ = session("AAA", 60, futures=True)
    frame = json.loads(frames[places(frames, "bookTicker")[0]])
    frame["data"]["T"] = 2**62
    (tick,) = take([json.dumps(frame)], Instrument("AAA.usdm"))
    assert tick.exchange_ns is None


def test_of_missing_trades_only_the_newest_are_remembered() -> None:
    one = Instrument("AAA.spot")
    for place in range(5):
        one.take(TradeFrame("AAA", 1 + place * MOST_MISSING, 100.0, 1.0, buyer_is_maker=True), 1)
    assert one.counts[Count.TRADES_MISSED] == 4 * (MOST_MISSING - 1)
    assert len(one._missing) <= MOST_MISSING
    assert one.take(TradeFrame("AAA", 4 * MOST_MISSING, 100.0, 1.0, buyer_is_maker=True), 1) is None
    assert one.counts[Count.LATE] == 1
