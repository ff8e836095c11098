"""Bad input from the exchange: each kind is counted, and nothing wrong is decided."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from infra.live.venues.binance import Binance
from infra.live.venues.rest import MOST_PAUSE_S, retry_after_s
from model_code.live.binance import Count
from model_code.live.messages import Tick
from model_code.live.reasons import Column, Reason
from tests.support.exchange import (
    Exchange,
    Kept,
    Step,
    gaps,
    play,
    session,
    stream,
    ticks_of,
    values,
)
from tests.support.live import path

SYMBOL = "AAA.spot"
Result = tuple[Kept, Binance, list[str], Exchange]


def played(
    *bad: Step,
    at: int = 100,
    until: Callable[[Binance], bool] = lambda _: True,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """A sound session with bad frames in its middle."""
    steps, book = session("AAA", 200)
    script: list[Step] = [*steps[:at], *bad, *steps[at:]]
    exchange = Exchange(script, books={"AAA": book}, **(options or {}))
    return *asyncio.run(play(exchange, [SYMBOL], until, **changes)), exchange


def sent() -> list[tuple[Any, ...]]:
    return [values(one) for one in ticks_of(session("AAA", 200)[0], "AAA")]


def quote(bid: str, ask: str, number: int) -> str:
    return stream("AAA", "bookTicker", u=number, s="AAA", b=bid, B="1.0", a=ask, A="1.0")


def reasons(ticks: list[Tick]) -> set[tuple[Column, Reason | None]]:
    """Where the live path puts these ticks."""
    live = path((SYMBOL,))
    return {
        (outcome.column, outcome.reason)
        for tick in ticks
        for outcome in live.take(tick, tick.local_ns)
        if outcome.letter is not None
    }


@pytest.mark.parametrize(
    "bad",
    [
        '{"stream":"aaa@trade","data":{"e":"tra',
        stream("AAA", "trade", e="trade", s="AAA", t=1, p="ten", q="1", m=True),
        stream("AAA", "trade", e="trade", s="AAA", p="1", q="1", m=True),
        stream("AAA", "bookTicker", u=5, s="AAA", b="nan", B="1", a="1", A="1"),
    ],
)
def test_an_unreadable_frame_is_a_gap_and_said_once(bad: str) -> None:
    kept, feed, said, _ = played(bad, bad)
    assert [values(one) for one in kept.ticks] == sent()
    assert feed.counts[Count.UNREADABLE] == 2
    assert len(gaps(kept.ticks)) == 1
    assert len([line for line in said if "a frame is unreadable" in line]) == 1


def test_a_quote_without_an_update_id_is_a_gap() -> None:
    bad = stream("AAA", "bookTicker", s="AAA", e="bookTicker", b="1", B="1", a="2", A="1")
    kept, feed, _, _ = played(bad)
    assert [values(one) for one in kept.ticks] == sent()
    assert feed.counts[Count.UNREADABLE_GAPS] == 1
    assert len(gaps(kept.ticks)) == 1


@pytest.mark.parametrize(
    ("bad", "count"),
    [
        (stream("AAA", "kline_1m", e="kline", s="AAA"), Count.UNKNOWN_EVENT),
        ('{"result":null,"id":1}', Count.UNKNOWN_EVENT),
        ('{"e":"serverShutdown","E":1}', Count.UNKNOWN_EVENT),
        ("[1,2]", Count.UNKNOWN_EVENT),
        (stream("BBB", "trade", e="trade", s="BBB", t=1, p="1", q="1", m=True),
         Count.NOT_SUBSCRIBED),
    ],
)  # fmt: skip
def test_frames_of_other_kinds_and_instruments_are_counted_and_change_nothing(
    bad: str, count: Count
) -> None:
    kept, feed, _, _ = played(bad)
    assert feed.counts[count] == 1
    assert [values(one) for one in kept.ticks] == sent()
    assert gaps(kept.ticks) == []


@pytest.mark.parametrize(
    ("bid", "ask", "reason"),
    [("101.0", "100.0", Reason.CROSSED_QUOTE), ("0.0", "100.0", Reason.PRICE_NOT_POSITIVE)],
)
def test_a_bad_quote_is_handed_over_and_dead_lettered(bid: str, ask: str, reason: Reason) -> None:
    kept, _, _, _ = played(quote(bid, ask, 100_000), at=len(session("AAA", 200)[0]))
    assert values(kept.ticks[-1])[::2] == (float(bid), float(ask))
    assert reasons(kept.ticks) == {(Column.DEAD_LETTERED, reason)}


def test_a_trade_at_price_zero_is_dead_lettered() -> None:
    steps, book = session("AAA", 20)
    bad = stream("AAA", "trade", e="trade", s="AAA", t=100_000, p="0", q="0", X="NA", m=True)
    exchange = Exchange([*steps, bad], books={"AAA": book})
    kept, feed, _ = asyncio.run(play(exchange, [SYMBOL]))
    assert (Column.DEAD_LETTERED, Reason.TRADE_BAD) in reasons(kept.ticks)
    assert feed.counts[Count.TRADE_GAPS] == 1  # its id jumps


def test_a_lost_trade_is_a_gap_of_as_many_numbers() -> None:
    steps, book = session("AAA", 200)
    trades = [place for place, step in enumerate(steps) if '"trade"' in step]
    del steps[trades[5]], steps[trades[6] - 1]
    kept, feed, _ = asyncio.run(play(Exchange([*steps], books={"AAA": book}), [SYMBOL]))
    (place,) = gaps(kept.ticks)
    assert kept.ticks[place].sequence - kept.ticks[place - 1].sequence == 3
    assert feed.counts[Count.TRADES_MISSED] == 2


def old_book() -> str:
    _, book = session("AAA", 1)
    assert book.last is not None
    book.last -= 500
    return book.answer()


def one_book(feed: Binance) -> bool:
    return all(one.book.complete for each in feed.connections for one in each.instruments.values())


def test_a_rest_book_older_than_the_first_event_is_asked_for_again() -> None:
    kept, feed, said, exchange = played(
        options={"answers": [(200, old_book(), {})]}, until=one_book
    )
    assert feed.counts[Count.SNAPSHOTS_TOO_OLD] == 1
    assert feed.counts[Count.SNAPSHOTS] == 2
    assert said == [f"{SYMBOL}: the REST book is older than the stream; asking again"]
    assert gaps(kept.ticks) == []
    assert len(exchange.requests) == 3


@pytest.mark.parametrize("status", [429, 418])
def test_a_rate_limit_of_rest_pauses_as_long_as_it_says(status: int) -> None:
    answers = [(status, "{}", {"Retry-After": "0.05"})]
    kept, feed, said, _ = played(options={"answers": answers}, until=one_book)
    assert feed.counts[Count.LIMITED] == 1
    assert f"HTTP {status}, no requests for 0.05 s" in said[0]
    assert feed.counts[Count.SNAPSHOTS] == 1
    assert gaps(kept.ticks) == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((500, "down", {}), "HTTP 500 down"),
        ((200, "<html>", {}), "unreadable: not JSON"),
        ((200, '{"lastUpdateId":1,"bids":[["x","1"]],"asks":[]}', {}), "unreadable: book"),
        ((200, '{"symbol":"BBB","lastUpdateId":1,"bids":[],"asks":[]}', {}), "another answer"),
    ],
)
def test_a_failed_request_is_said_and_tried_again(
    answer: tuple[int, str, dict[str, str]], why: str
) -> None:
    _, feed, said, _ = played(options={"answers": [answer]}, until=one_book)
    assert feed.counts[Count.SNAPSHOTS_FAILED] == 1
    assert why in said[0]
    assert feed.counts[Count.SNAPSHOTS] == 1


def test_a_refused_connection_waits_as_long_as_it_says() -> None:
    refusals = [(429, "", {"Retry-After": "0.05"}), (503, "", {})]
    kept, feed, said, _ = played(options={"refusals": refusals})
    assert feed.counts[Count.LIMITED] == 1
    assert "HTTP 429; connecting again in 0.0" in said[0] or "in 0.1 s" in said[0]
    assert "HTTP 503" in said[1]
    assert [values(one) for one in kept.ticks] == sent()


def test_a_silent_connection_and_an_old_one_are_renewed() -> None:
    _, feed, said, _ = played(until=lambda feed: feed.counts[Count.CONNECTIONS] > 1, silence_s=0.2)
    assert feed.counts[Count.CONNECTIONS] > 1
    assert "no frame for 0.2 s" in said[0]
    _, _, said, _ = played(
        until=lambda feed: feed.counts[Count.CONNECTIONS] > 1, renew_h=0.2 / 3600
    )
    assert "renewed after" in said[0]


def test_each_failure_doubles_the_longest_wait() -> None:
    from infra.live.venues.spec import BinanceSpec

    feed = Binance(BinanceSpec(), [SYMBOL], lambda _: None)
    waits = [feed.connections[0]._longest_s(failures) for failures in (1, 2, 3, 7, 500)]
    assert waits == [0.5, 1.0, 2.0, 30.0, 30.0]


@pytest.mark.parametrize(
    ("header", "pause_s"),
    [("3", 3.0), (None, 60.0), ("soon", 60.0), ("-1", 60.0), ("nan", 60.0), ("1e12", MOST_PAUSE_S)],
)
def test_the_pause_of_a_rate_limit(header: str | None, pause_s: float) -> None:
    assert retry_after_s(header, 60.0) == pause_s
