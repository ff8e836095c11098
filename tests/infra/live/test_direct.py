"""Direct hand-over: the decisions of a replay, and a broker that never delays one."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.live.direct import Direct, Recorder
from infra.live.kafka.clients import create_topics
from infra.live.kafka.producer import Outbox
from model_code.live.binance import Count
from model_code.live.messages import Decision, Tick, read
from model_code.live.path import Asked, LivePath
from model_code.live.reasons import Column, Reason
from model_code.live.recorded import Feed, played
from model_code.live.replay import play_store
from model_code.market.store import open_market
from tests.support.broker import kafka_spec, read_all
from tests.support.exchange import Exchange, serving, session, spec
from tests.support.live import StepPredictor, model, path, quote
from tests.support.market import DATES, SYMBOLS, hive

N = 90
GROUPS = {name: (name,) for name in SYMBOLS[:2]}
AWAY = "127.0.0.1:1"


class Kept:
    """What `decided` is given."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.windows = 0

    def __call__(self, decisions: Sequence[Decision], asked: Sequence[Asked]) -> None:
        self.decisions += decisions
        self.windows += sum(len(one.waiting) for one in asked)


def make_path(symbols: tuple[str, ...]) -> LivePath:
    return path(symbols)


def direct(kept: Kept, **options: Any) -> Direct:
    return Direct(
        options.pop("groups", GROUPS), make_path, options.pop("predictor", StepPredictor()),
        kept, options.pop("say", lambda _: None), **options,
    )  # fmt: skip


def ticks_of(store: str) -> list[Tick]:
    market = open_market(store)
    return list(Feed().messages([played(market, day)[0] for day in market.catalog()]))


def test_the_decisions_are_those_of_the_batch(tmp_path: Path) -> None:
    store = hive(tmp_path, n=N, dates=DATES[:1])
    ticks, kept = ticks_of(store), Kept()
    now = 0
    found = direct(kept, clock=lambda: now)
    for tick in ticks:
        now = tick.local_ns
        found.take(tick)
        found.decide()
    found.stop()
    market = open_market(store)
    replay = play_store(market, market.catalog(), model())  # raises on any difference
    assert len(kept.decisions) == replay.tally.compared > 0
    assert found.ledger.balanced()
    assert {one.flags for one in kept.decisions} == {("in-process",)}
    positive = sum(one.decision for one in kept.decisions)
    assert positive == sum(replay.tally.positive.values())


def test_ticks_that_arrive_together_are_taken_before_the_engine_is_asked() -> None:
    kept = Kept()
    due: list[Callable[[], object]] = []
    now = quote(1000).local_ns + 10**12
    found = direct(kept, defer=due.append, clock=lambda: now)
    for number in range(1, 70):
        found.take(quote(number, 10.0 * number), 5)
    assert len(due) == 1
    due[0]()
    (decision,) = kept.decisions
    assert decision.sequence == 69
    assert found.ledger.columns[Column.CONFLATED] == 5
    assert kept.windows == 1


def test_an_engine_that_fails_is_counted_and_said_once() -> None:
    class Broken:
        def predict(self, _: NDArray[np.float32]) -> NDArray[np.float32]:
            raise OSError("no memory")

    said: list[str] = []
    found = direct(Kept(), predictor=Broken(), say=said.append, clock=lambda: 2 * 10**18)
    for number in range(1, 70):
        found.take(quote(number, 10.0 * number))
        assert found.decide() == []
    assert found.failures == found.ledger.reasons[Reason.INFERENCE_FAILED] == 6
    assert said == ["the engine did not answer: no memory; later failures are counted"]
    assert found.ledger.balanced()


def test_a_tick_of_no_group_is_counted() -> None:
    found = direct(Kept())
    found.take(quote(1, symbol="OTHER.spot"))
    found.stop()
    assert found.ledger.reasons[Reason.UNKNOWN_SYMBOL] == 1
    assert found.ledger.balanced()


def test_ticks_and_decisions_are_recorded(broker: str) -> None:
    made = kafka_spec(broker)
    create_topics(made, [made.ticks[0], made.decisions])
    outbox = Outbox(made)
    recorder = Recorder(outbox, made.ticks[0], made.decisions, dict.fromkeys(SYMBOLS, "key"))
    found = direct(Kept(), recorder=recorder, clock=lambda: 2 * 10**18)
    for number in range(1, 70):
        found.take(quote(number, 10.0 * number))
        found.decide()
    assert recorder.recorded == 0  # only between decisions
    recorder.serve()
    assert outbox.flush(10)
    decisions = [read(Decision, one.value() or b"") for one in read_all(made, made.decisions, 6)]
    assert [one.sequence for one in decisions] == list(range(64, 70))
    assert len(read_all(made, made.ticks[0], 69)) == 69


def test_a_broker_that_is_away_delays_nothing_and_is_counted() -> None:
    small = {"queue.buffering.max.messages": "10", "message.timeout.ms": "50"}
    outbox = Outbox(kafka_spec(AWAY, client=small))
    recorder = Recorder(outbox, "ticks", "decisions", dict.fromkeys(SYMBOLS, "key"), most=30)
    kept = Kept()
    found = direct(kept, recorder=recorder, clock=lambda: 2 * 10**18)
    for number in range(1, 70):
        found.take(quote(number, 10.0 * number))
        found.decide()
        recorder.serve()
    assert len(kept.decisions) == 6
    assert recorder.recorded + len(recorder) + recorder.dropped == 69 + 6
    assert recorder.dropped > 0
    outbox.close()


def test_a_producer_that_refuses_ends_nothing_and_is_counted() -> None:
    outbox = Outbox(kafka_spec(AWAY, client={"message.max.bytes": "1000"}))
    recorder = Recorder(outbox, "ticks", "decisions", dict.fromkeys(SYMBOLS, "k" * 2000))
    recorder.keep(quote(1))
    recorder.keep(quote(2))
    recorder.serve()
    assert (recorder.recorded, recorder.dropped, len(recorder)) == (0, 2, 0)
    outbox.close()


def test_an_exchange_hands_over_without_a_broker() -> None:
    frames, book = session("AAA", 400)
    exchange = Exchange([*frames], books={"AAA": book})

    async def run() -> tuple[Direct, Kept]:
        from infra.live.venues.binance import Binance

        kept = Kept()
        loop = asyncio.get_running_loop()
        async with serving(exchange):
            feed = Binance(spec(exchange), ["AAA.spot"], lambda _: None)
            found = direct(kept, groups={"AAA.spot": ("AAA.spot",)}, defer=loop.call_soon)
            running = asyncio.create_task(feed.run(found))
            await exchange.done.wait()
            while found.ledger.taken < feed.counts[Count.QUOTES] + feed.counts[Count.TRADES]:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            feed.stop()
            await running
        found.stop()
        return found, kept

    found, kept = asyncio.run(run())
    assert found.ledger.taken > 300
    assert found.ledger.balanced()
    assert kept.decisions
    assert kept.decisions[0].latency.decode > 0 or kept.decisions[0].latency.total == 0
