"""Binance's frames from a local server: every tick once and in order, or a gap that is noticed."""

import asyncio
from pathlib import Path

import pytest

from infra.live.venues.binance import Binance, by_market
from model_code.errors import ConfigError
from model_code.live.binance import Count
from tests.support.exchange import (
    MOST_DELAY,
    Drop,
    Exchange,
    Step,
    faulty,
    gaps,
    play,
    recorded,
    session,
    ticks_of,
    unnoticed,
    values,
)

SYMBOL = "AAA.spot"
N = 300


def scripted(steps: list[Step], futures: bool = False, **options: object) -> Exchange:
    _, book = session("AAA", 1, futures=futures)
    return Exchange(steps, books={"AAA": book}, **options)  # type: ignore[arg-type]


def frames(n: int = N, *, futures: bool = False) -> list[str]:
    return session("AAA", n, futures=futures)[0]


@pytest.mark.parametrize("symbol", ["AAA.spot", "AAA.usdm"])
def test_without_faults_every_tick_comes_once_and_in_order(symbol: str) -> None:
    steps = frames(futures=symbol == "AAA.usdm")
    kept, feed, said = asyncio.run(play(scripted([*steps]), [symbol]))
    sent = ticks_of(steps, "AAA")
    assert [values(one) for one in kept.ticks] == [values(one) for one in sent]
    assert [one.sequence for one in kept.ticks] == list(range(1, len(sent) + 1))
    assert {one.session for one in kept.ticks} == {kept.ticks[0].session}
    assert {one.exchange_ns is None for one in kept.ticks} == {symbol == "AAA.spot"}
    assert feed.counts[Count.SNAPSHOTS] == 1
    assert said == []


def test_markets_have_their_own_connections_and_streams() -> None:
    async def run() -> tuple[Exchange, Binance]:
        exchange = scripted([*frames(4)])
        _, feed, _ = await play(exchange, ["AAA.spot", "AAA.usdm"], depth=None, most_streams=4)
        return exchange, feed

    exchange, feed = asyncio.run(run())
    assert [path for path in exchange.requests if path.startswith("/stream")] == [
        "/stream?streams=aaa@bookTicker/aaa@trade"
    ] * 2
    assert feed.counts[Count.CONNECTIONS] == 2
    assert by_market(["A.spot", "B_PERP.coinm", "C.spot"]) == {
        "spot": ["A.spot", "C.spot"],
        "coinm": ["B_PERP.coinm"],
    }


@pytest.mark.parametrize(
    ("symbols", "what"),
    [
        ([], "no instruments"),
        (["AAA"], "AAA is no instrument of Binance"),
        (["aaa.spot"], "aaa.spot is no instrument"),
        (["A/B.spot"], "A/B.spot is no instrument"),
        (["AAA.spot", "AAA.spot"], "AAA.spot is named twice"),
    ],
)
def test_symbols_must_be_named_as_the_venue_does(symbols: list[str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        by_market(symbols)


def test_a_broken_connection_begins_a_new_session_and_a_new_book() -> None:
    steps: list[Step] = [*frames()]
    steps.insert(200, Drop(lost=20))
    exchange = scripted(steps)
    kept, feed, said = asyncio.run(play(exchange, [SYMBOL], lambda feed: books(feed) == 2))
    before, after = sorted({one.session for one in kept.ticks})
    assert len(gaps(kept.ticks)) == 1
    assert after > before
    sent = ticks_of([*steps[:200], *steps[221:]], "AAA")
    assert [values(one) for one in kept.ticks] == [values(one) for one in sent]
    assert feed.counts[Count.DISCONNECTIONS] == 2
    assert "connecting again in" in said[0]


def books(feed: Binance) -> int:
    return feed.counts[Count.SNAPSHOTS]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("futures", [False, True])
def test_with_faults_a_tick_comes_once_and_in_order_or_a_gap_says_so(
    seed: int, futures: bool
) -> None:
    steps = frames(600, futures=futures)
    script = faulty(steps, seed, repeats=40, delays=10, drops=3)
    kept, feed, _ = asyncio.run(play(scripted(script, futures), [SYMBOL]))
    assert unnoticed(kept.ticks, ticks_of(steps, "AAA"), 2 * MOST_DELAY) == []
    assert feed.counts[Count.REPEATED] > 10
    assert feed.counts[Count.CONNECTIONS] == 4
    assert 4 <= len(gaps(kept.ticks)) < 60


def test_repeats_alone_are_left_out_and_make_no_gap() -> None:
    steps = frames()
    kept, feed, _ = asyncio.run(play(scripted(faulty(steps, 5, repeats=60)), [SYMBOL]))
    assert [values(one) for one in kept.ticks] == [values(one) for one in ticks_of(steps, "AAA")]
    assert gaps(kept.ticks) == []
    assert books(feed) == 1


def test_a_recorded_slice_comes_out_as_the_batch_reader_reads_it(binance_frames: str) -> None:
    names = ("spot_ethusdt", "usdm_ethusdt", "cm_ethusd_perp")
    paths = [Path(binance_frames) / f"{name}_20240808.gz" for name in names]
    steps, found = recorded(paths[:1], 1500)
    kept, _, said = asyncio.run(play(Exchange([*steps], books=found), ["ETHUSDT.spot"]))
    sent = ticks_of(steps, "ETHUSDT")
    assert [values(one) for one in kept.ticks] == [values(one) for one in sent]
    assert gaps(kept.ticks) == []
    assert said == []
