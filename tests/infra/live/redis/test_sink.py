"""Decisions of a service in Redis: it never waits, Redis gets the newest."""

import asyncio
import time

from infra.live.outputs import decide, ready
from infra.live.redis.sink import RedisSink
from infra.live.redis.spec import RedisSpec
from infra.live.redis.state import RedisState
from model_code.live.messages import Decision
from model_code.live.path import Asked
from tests.infra.live.test_outputs import Fixed
from tests.support.live import MS, NOON, path, quote
from tests.support.redis import RedisServer

SPEC = RedisSpec(expire_ms=60_000, timeout_s=5.0, reconnect_s=0.01)


def rounds(count: int) -> list[tuple[list[Decision], list[Asked]]]:
    """One decision each, on quotes of this moment."""
    live, found = path(), []
    now_ms = (time.time_ns() - NOON) / MS
    for sequence in range(1, 64 + count):
        one = quote(sequence, now_ms + sequence / 100)
        live.take(one, one.local_ns)
        if sequence > 63:
            windows = ready(live, one.local_ns)
            decisions = asyncio.run(decide(Fixed(), windows, print))
            found.append((decisions, [asked for _, asked in windows]))
    return found


def test_the_newest_decision_and_quote_are_written(server: RedisServer) -> None:
    lines: list[str] = []

    async def play() -> RedisSink:
        async with RedisSink(RedisState(server.url, SPEC), "solo", lines.append) as sink:
            for decisions, asked in rounds_of:
                await sink.write(decisions, asked)
        return sink

    rounds_of = rounds(5)
    sink = asyncio.run(play())
    found = server.hash()
    assert found["sequence"] == found["quote_sequence"] == "68"
    assert found["model_version"] == "8"
    assert found["bid_price"].startswith("100.0")
    assert sink.replaced == 8  # none was written before the last one came
    assert sink.state == "Redis: written 2, replaced 8"
    assert lines == []


def test_redis_away_is_said_once_and_delays_nothing(server: RedisServer) -> None:
    lines: list[str] = []

    async def play() -> None:
        async with RedisSink(RedisState(server.url, SPEC), "solo", lines.append) as sink:
            server.kill()
            for decisions, asked in rounds_of[:4]:
                await sink.write(decisions, asked)
                await asyncio.sleep(0.01)
            server.start()
            end = time.monotonic() + 20
            while server.hash().get("sequence") != "68":
                await sink.write(*rounds_of[4])
                assert time.monotonic() < end
                await asyncio.sleep(0.02)

    rounds_of = rounds(5)
    asyncio.run(play())
    assert [line for line in lines if "cannot be used" in line] == lines[:1]


def test_a_redis_that_is_away_at_the_start_does_not_stop_the_service(server: RedisServer) -> None:
    lines: list[str] = []
    server.kill()

    async def play() -> None:
        async with RedisSink(RedisState(server.url, SPEC), "solo", lines.append):
            pass

    asyncio.run(play())
    assert len(lines) == 1
    assert server.url.removeprefix("redis://") in lines[0]


def test_nothing_to_write_writes_nothing(server: RedisServer) -> None:
    async def play() -> str:
        async with RedisSink(RedisState(server.url, SPEC), "solo", print) as sink:
            await sink.write([], [])
        return sink.state

    assert asyncio.run(play()) == "Redis: nothing to write"
    assert server.hash() == {}
