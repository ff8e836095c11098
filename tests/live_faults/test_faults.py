"""Faults of the live path on real processes; after each the ledger balances."""

import signal
import time
from functools import partial

import pytest
import redis

from infra.live.kafka.clients import create_topics, dead_letters
from model_code.live.ledger import Ledger
from model_code.live.messages import Decision
from model_code.live.reasons import Column
from tests.chaos.harness import Row
from tests.live_faults.conftest import MakeRig
from tests.live_faults.harness import (
    FIRST,
    SYMBOLS,
    Mark,
    Stream,
    Versions,
    balanced,
    every_decision,
    finish,
    late,
    reload_model,
)
from tests.support.broker import read_all

S = 1_000_000_000
COMMIT_S = 7.0  # positions are committed every 5 s
DELIVER_MS = 10_000
FORGET_S = 20.0  # within which a producer finds that the broker does not know it


def of(symbol: str, one: Decision) -> bool:
    return one.symbol == symbol


@pytest.mark.fast
def test_a_poison_message(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu")
    service = live.service()
    poison = [b"\xc1 broken", b'{"type": "quote"}', b"", b"\x93" * 100_000]
    with Stream(live) as stream:
        stream.recovered()
        begun = stream.mark()
        for payload in poison:
            stream.raw(payload, b"AAA.test")
        stream.raw(b"{}", b"of no group")
        seconds = stream.recovered(begun)
        done = finish(stream, [service])
        balanced(stream, done, besides=5)
    assert done.ledger.columns[Column.DEAD_LETTERED] == 5
    letters = read_all(live.kafka, dead_letters(live.kafka.ticks[0]), 5)
    assert {message.value() or b"" for message in letters} == {*poison, b"{}"}
    table.append(Row("five poison messages", "5 dead letters with their bytes", seconds))


def test_a_clock_step(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu")
    service = live.service()
    with Stream(live) as stream:
        stream.recovered()
        stream.step_ns = 3600 * S
        time.sleep(0.5)
        stream.step_ns = 0
        ahead = stream.recovered(stream.mark())
        begun = stream.mark()
        stream.step_ns = -S
        back = stream.recovered(begun)
        done = finish(stream, [service])
    ledger = done.ledger
    assert ledger.taken == len(stream.sent)
    assert ledger.columns[Column.DECIDED] == stream.back.decided
    stepped, behind = ledger.columns[Column.DEAD_LETTERED], ledger.reordered
    assert stepped == stream.ahead > 0
    assert behind == late(stream.sent, time.time_ns()) > 0
    table.append(
        Row("clock of the feed an hour ahead", f"{stepped} dead letters `ahead_of_clock`", ahead)
    )
    table.append(
        Row(
            "clock of the feed 1 s back",
            f"{behind} ticks suppressed as `late` until it caught up",
            back,
        )
    )


def test_service_killed_and_resumed(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu")
    service = live.service(every_window=True, snapshot_s=0.5)
    with Stream(live) as stream:
        stream.recovered()
        time.sleep(COMMIT_S)
        service.kill()
        begun = stream.mark()
        again = live.service(every_window=True, snapshot_s=0.5)
        seconds = stream.recovered(begun)
        finish(stream, [again])
        every_decision(stream)
    assert "continues at" in again.text
    table.append(
        Row(
            "service SIGKILLed, started again",
            "continues from its snapshot; every decision came, "
            f"{stream.back.duplicated} of {stream.back.decided} twice",
            seconds,
        )
    )


def test_rebalance_between_two_services(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu")
    first = live.service(every_window=True)
    with Stream(live) as stream:
        stream.recovered()
        time.sleep(1.0)
        second = live.service(every_window=True, wait=False)
        second.await_text("continues at")
        joined = stream.recovered(stream.mark())
        time.sleep(1.0)
        second.kill()
        begun = stream.mark()
        left = max(stream.recovered(begun, partial(of, symbol)) for symbol in SYMBOLS)
        finish(stream, [first])
        every_decision(stream)
    repeated = stream.back.duplicated
    table.append(Row("second service joins", "takes partitions with their snapshots", joined))
    table.append(
        Row("it is SIGKILLed", f"the first takes over; every decision came, {repeated} twice", left)
    )


def test_broker_restarted(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu")
    # a producer that the broker does not know may also wait for the delivery timeout
    service = live.service(kafka=live.kafka.model_copy(update={"delivery_timeout_ms": DELIVER_MS}))
    with Stream(live) as stream:
        stream.recovered()
        stream.stop()
        stream.settle()
    live.servers["tansu"].kill()
    begun = Mark(time.time_ns(), {})
    live.servers["tansu"].start()
    letters = [dead_letters(topic) for topic in live.kafka.ticks]
    create_topics(live.kafka, [*live.kafka.ticks, *letters, live.kafka.decisions])
    with Stream(live, session=2) as again:
        time.sleep(FORGET_S)
        serving, earlier = service, Ledger()
        if not service.running:  # the broker does not know the producer; the stack starts it again
            assert service.end() == 1
            assert "not delivered" in service.text
            serving, earlier = live.service(), Ledger.parse(service.text)
        seconds = again.recovered(begun)
        done = finish(again, [serving])
    taken = earlier.taken + done.ledger.taken
    assert taken >= len(stream.sent) + len(again.sent)
    assert again.back.decided >= done.ledger.columns[Column.DECIDED] > 0
    assert done.ledger.lost == earlier.lost == 0
    ended = "continues" if serving is service else "exits with 1; started again, it continues"
    table.append(
        Row("broker (in memory) restarted", f"all topics are lost; the service {ended}", seconds)
    )


def test_a_slow_consumer_of_decisions(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu")
    service = live.service()
    with Stream(live) as stream:
        stream.recovered()
        stream.slow_s = 3.0
        begun = stream.mark()
        time.sleep(3.5)
        done = finish(stream, [service])
        balanced(stream, done)
        inside = [
            one.decided_ns - one.received_ns
            for one, _ in stream.newest
            if one.local_ns >= begun.at_ns and one.decided_ns and one.received_ns
        ]
    assert len(inside) > 100
    middle = sorted(inside)[len(inside) // 2] / 1e6
    table.append(
        Row(
            "a consumer of decisions stops for 3 s",
            f"the service takes no notice: its p50 meanwhile is {middle:.1f} ms",
            None,
        )
    )


def test_a_service_that_stands_still(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu")
    service = live.service()
    with Stream(live) as stream:
        stream.recovered()
        service.signal(signal.SIGSTOP)
        time.sleep(1.5)
        service.signal(signal.SIGCONT)
        seconds = stream.recovered(stream.mark())
        done = finish(stream, [service])
        balanced(stream, done)
    conflated = done.ledger.columns[Column.CONFLATED]
    assert conflated > 0
    table.append(
        Row("service stopped for 1.5 s", f"{conflated} windows conflated to the newest", seconds)
    )


def test_redis_killed_and_restarted(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu", "redis")
    service = live.service()
    with Stream(live) as stream, redis.Redis.from_url(live.redis_url) as client:
        stream.recovered()
        written(client, stream.mark())
        live.servers["redis"].kill()
        begun = stream.mark()
        topic = stream.recovered(begun)
        time.sleep(1.0)
        live.servers["redis"].start()
        seconds = written(client, stream.mark())
        done = finish(stream, [service])
        balanced(stream, done)
    table.append(Row("Redis killed", "decisions go on in the topic; keys have expired", topic))
    table.append(Row("Redis started again", "newest decisions are in Redis", seconds))


def test_a_slow_redis(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu", "redis")
    service = live.service()
    with Stream(live) as stream, redis.Redis.from_url(live.redis_url) as client:
        stream.recovered()
        live.servers["redis"].signal(signal.SIGSTOP)
        begun = stream.mark()
        topic = stream.recovered(begun)
        time.sleep(2.0)
        longest = max(
            one.decided_ns - one.received_ns
            for one, _ in stream.newest
            if one.decided_ns and one.received_ns and one.sequence > begun.sequences[one.symbol]
        )
        live.servers["redis"].signal(signal.SIGCONT)
        seconds = written(client, stream.mark())
        done = finish(stream, [service])
        balanced(stream, done)
    text = f"decisions go on in the topic, at most {longest / 1e6:.0f} ms in the service"
    table.append(Row("Redis stands still for 2 s", text, topic))
    table.append(Row("Redis continues", "newest decisions are in Redis", seconds))


def written(client: "redis.Redis", since: Mark) -> float:
    """Seconds until each instrument's decision in Redis is on a tick after the mark."""
    until = time.monotonic() + 30.0
    left = set(SYMBOLS)
    while left and time.monotonic() < until:
        for symbol in sorted(left):
            found = client.hget(f"tickline:state:{symbol}", "sequence")
            if found is not None and int(found) > since.sequences.get(symbol, 0):
                left.discard(symbol)
        time.sleep(0.005)
    assert left == set()
    return (time.time_ns() - since.at_ns) / 1e9


def test_triton_killed_and_restarted(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu", "triton")
    service = live.service()
    triton = live.servers["triton"]
    with Stream(live) as stream:
        stream.recovered(FIRST, lambda one: not one.flags)
        triton.kill()
        begun = stream.mark()
        away = stream.recovered(begun, lambda one: "fallback" in one.flags)
        time.sleep(1.0)
        triton.start()
        begun = stream.mark()
        reload_model(live)
        back = stream.recovered(begun, lambda one: not one.flags)
        done = finish(stream, [service])
        balanced(stream, done)
    table.append(Row("Triton killed", "the approved engine answers in the service", away))
    table.append(Row("Triton started again", "Triton answers", back))


def test_backend_process_killed(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu", "triton")
    service = live.service()
    with Stream(live) as stream:
        stream.recovered(FIRST, lambda one: not one.flags)
        (stub,) = [
            one
            for one in live.servers["triton"].child.children(recursive=True)
            if "stub" in one.name() or "triton_python_b" in one.name()
        ]
        stub.kill()
        begun = stream.mark()
        away = stream.recovered(begun, lambda one: "fallback" in one.flags)
        triton = live.servers["triton"]  # it does not start the process again by itself
        triton.kill()
        triton.start()
        begun = stream.mark()
        reload_model(live)
        back = stream.recovered(begun, lambda one: not one.flags)
        done = finish(stream, [service])
        balanced(stream, done)
    text = "the engine in the service answers; Triton does not start the process again"
    table.append(Row("Triton's model process killed", text, away))
    table.append(Row("Triton started again", "Triton answers", back))


def test_promotion_and_rollback_in_mid_stream(make_rig: MakeRig, table: list[Row]) -> None:
    live = make_rig("tansu", "triton")
    service = live.service()
    versions = Versions(live)
    versions.swap("promote", 1)
    with Stream(live) as stream:
        stream.recovered(FIRST, lambda one: one.model_version == 1)
        begun = stream.mark()
        versions.swap("promote", 2)
        promoted = stream.recovered(begun, lambda one: one.model_version == 2)
        time.sleep(1.0)
        begun = stream.mark()
        versions.swap("rollback", 1)
        rolled_back = stream.recovered(begun, lambda one: one.model_version == 1)
        done = finish(stream, [service])
        balanced(stream, done)
        fallen = sum(1 for one, _ in stream.newest if "fallback" in one.flags)
    table.append(
        Row(
            "promotion in mid-stream",
            f"version 2 decides; {fallen} decisions by the fallback",
            promoted,
        )
    )
    table.append(Row("rollback in mid-stream", "version 1 decides again", rolled_back))
