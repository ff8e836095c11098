"""Against a real redis-server."""

import asyncio
import re
import runpy
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from infra.live.redis.spec import RedisSpec
from infra.live.redis.state import RedisState
from infra.servers import HOST, ServerError, free_port
from tests.support.market import SYMBOLS
from tests.support.redis import RedisServer, decision, market_state

LONG = RedisSpec(expire_ms=60_000, reconnect_s=0.01)
DOCS = Path(__file__).resolve().parents[4] / "docs" / "live.md"
FIRST, SECOND, THIRD = "A.spot", "B.spot", "C.spot"


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.01)


def balanced(state: RedisState) -> bool:
    return state.counts.taken == state.counts.ended + state.waiting


def test_one_readable_hash_for_each_instrument(server: RedisServer) -> None:
    now = time.time_ns()

    async def write() -> None:
        async with RedisState(server.url, LONG, clock=lambda: now + 1) as state:
            one = decision(41, local_ns=now, exchange_ns=now - 5, flags=("in-process",))
            quote = market_state(42, local_ns=now, vwap=100.02, imbalance=-0.25)
            await state.write([one, decision(3, SECOND)], [quote])
            assert (state.counts.written, state.error) == (3, None)

    asyncio.run(write())
    keys: list[str] = server.client.keys()  # type: ignore[assignment]
    assert sorted(keys) == sorted(f"tickline:state:{name}" for name in (SYMBOLS[0], SECOND))
    assert server.hash() == {
        "session": "1",
        "sequence": "41",
        "probability": "0.75",
        "threshold": "0.5",
        "decision": "true",
        "side": "",
        "model_version": "7",
        "exchange_ns": str(now - 5),
        "local_ns": str(now),
        "deadline_ns": str(now + 60_000_000_000),
        "flags": "in-process",
        "written_ns": str(now + 1),
        "quote_session": "1",
        "quote_sequence": "42",
        "quote_exchange_ns": "",
        "quote_local_ns": str(now),
        "quote_written_ns": str(now + 1),
        "bid_price": "100.0",
        "ask_price": "100.05",
        "bid_size": "",
        "ask_size": "",
        "last_trade": "",
        "vwap": "100.02",
        "ema_1min": "",
        "volatility": "",
        "imbalance": "-0.25",
    }


def test_a_late_or_duplicate_write_of_any_writer_changes_nothing(server: RedisServer) -> None:
    async def write() -> None:
        async with RedisState(server.url, LONG) as one, RedisState(server.url, LONG) as other:
            await one.write([decision(5)])
            before = server.hash()
            await other.write([decision(4, probability=0.1)])
            await other.write([decision(5, probability=0.1)])
            await other.write([decision(9, session=0, probability=0.1)])
            assert server.hash() == before
            counts = other.counts
            assert (counts.late, counts.duplicate, counts.written) == (2, 1, 0)
            await other.write([decision(1, session=2)])  # a feed handler that started again
            assert (server.hash()["session"], server.hash()["sequence"]) == ("2", "1")
            await one.write([decision(6)])
            assert server.hash()["session"] == "2"

    asyncio.run(write())


@pytest.mark.parametrize("large", [2**53, 2**63 - 2])
def test_numbers_beyond_doubles_are_compared_exactly(server: RedisServer, large: int) -> None:
    async def write() -> None:
        async with RedisState(server.url, LONG) as state:
            for number in (9, 10, large, large + 1, large):
                await state.write([decision(1, session=number)])
            assert (state.counts.written, state.counts.late) == (4, 1)
            assert server.hash()["session"] == str(large + 1)

    asyncio.run(write())


def test_whatever_the_order_the_newest_remains_and_all_are_counted(server: RedisServer) -> None:
    rng = np.random.default_rng(3)

    async def write() -> None:
        async with RedisState(server.url, LONG) as state:
            for _ in range(40):
                some = [
                    decision(int(rng.integers(30)), session=int(rng.integers(3)))
                    for _ in range(rng.integers(1, 6))
                ]
                orders.extend((one.session, one.sequence) for one in some)
                await state.write(some, [market_state(int(rng.integers(30)))])
                newest = max(orders)
                found = server.hash()
                assert (int(found["session"]), int(found["sequence"])) == newest
            assert balanced(state)
            assert state.counts.taken == len(orders) + 40

    orders: list[tuple[int, int]] = []
    asyncio.run(write())


def test_keys_expire_and_a_quote_does_not_prolong_a_decision(server: RedisServer) -> None:
    key = f"tickline:state:{SYMBOLS[0]}"

    def life_ms() -> int:
        return server.client.pttl(key)

    async def write() -> None:
        now = time.time_ns()
        async with RedisState(server.url, RedisSpec(expire_ms=400), clock=lambda: now) as state:
            await state.write([decision(1, local_ns=now)])
            assert 0 < life_ms() <= 400
            late_quote = market_state(2, local_ns=now + 60_000_000_000)
            await state.write([], [late_quote])
            assert life_ms() <= 400
            await until(lambda: not server.client.exists(key))
            await state.write([], [late_quote._replace(sequence=3)])  # now alone
            assert "decision" not in server.hash()
            assert 0 < life_ms() <= 400
            await until(lambda: not server.client.exists(key))

    asyncio.run(write())


def test_nothing_stale_is_written(server: RedisServer) -> None:
    async def write() -> None:
        old = time.time_ns() - 61_000_000_000
        async with RedisState(server.url, LONG) as state:
            await state.write(
                [decision(1, local_ns=old), decision(1, SECOND, deadline_ns=time.time_ns() - 1)],
                [market_state(1, THIRD, local_ns=old)],
            )
            assert state.counts.stale == 3
            assert balanced(state)
        assert server.client.dbsize() == 0

    asyncio.run(write())


def test_a_server_that_forgot_the_script_gets_it_again(server: RedisServer) -> None:
    async def write() -> None:
        async with RedisState(server.url, LONG) as state:
            await state.write([decision(1)])
            server.client.script_flush()
            await state.write([decision(2), decision(2, SECOND)])
            assert (state.counts.written, state.counts.failures) == (3, 0)
        assert server.hash()["sequence"] == "2"

    asyncio.run(write())


def test_after_a_restart_only_the_newest_values_are_written(server: RedisServer) -> None:
    async def write() -> None:
        async with RedisState(server.url, LONG) as state:
            await state.write([decision(1)])
            server.kill()
            for sequence in (2, 3, 4):
                await state.write([decision(sequence), decision(sequence, SECOND)])
            await state.write([decision(1, THIRD, deadline_ns=time.time_ns() + 1_000_000)])
            await until(lambda: state.counts.failures > 2)
            assert state.error is not None
            assert f"{HOST}:{server.port}" in str(state.error)
            assert (state.waiting, state.counts.written) == (3, 1)
            server.start()  # without the script
            await until(lambda: state.error is None)
            assert server.hash()["sequence"] == "4"
            assert server.hash(SECOND)["sequence"] == "4"
            assert server.hash(THIRD) == {}
            counts = state.counts
            assert (counts.written, counts.replaced, counts.stale) == (3, 4, 1)
            assert (counts.reconnections, counts.duplicate, state.waiting) == (1, 0, 0)
            await state.write([decision(5)])
            assert server.hash()["sequence"] == "5"
            assert balanced(state)

    asyncio.run(write())


def test_a_server_that_hangs_holds_up_no_write(server: RedisServer) -> None:
    async def write() -> None:
        async with RedisState(server.url, LONG.model_copy(update={"timeout_s": 0.1})) as state:
            await state.write([decision(1)])
            server.send(signal.SIGSTOP)
            try:
                await state.write([decision(2)])
                assert state.error is not None
                for sequence in range(3, 50):
                    await state.write([decision(sequence)])
            finally:
                server.send(signal.SIGCONT)
            await until(lambda: state.error is None)
            assert server.hash()["sequence"] == "49"
            assert balanced(state)
            assert state.counts.duplicate == 0

    asyncio.run(write())


def test_a_cancelled_write_is_written_by_the_next(server: RedisServer) -> None:
    async def write() -> None:
        async with RedisState(server.url, LONG) as state:
            await state.write([decision(1)])
            server.send(signal.SIGSTOP)
            try:
                task = asyncio.create_task(state.write([decision(2)]))
                await asyncio.sleep(0.05)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            finally:
                server.send(signal.SIGCONT)
            assert state.waiting == 1
            await state.write([decision(1, SECOND)])
            assert server.hash()["sequence"] == "2"
            assert (state.counts.written, state.waiting) == (3, 0)

    asyncio.run(write())


def test_an_absent_server_raises_only_in_check() -> None:
    async def write() -> None:
        state = RedisState(f"redis://{HOST}:{free_port()}", LONG)
        with pytest.raises(ServerError, match="Redis cannot be used"):
            await state.check()
        await state.write([decision(1), decision(2)])
        await state.close()
        assert (state.counts.replaced, state.counts.stopped, state.waiting) == (1, 1, 0)
        assert balanced(state)
        with pytest.raises(ServerError, match="after close"):
            await state.write([decision(3)])

    asyncio.run(write())


def test_a_wrong_password_says_so_and_shows_none(server: RedisServer) -> None:
    server.client.config_set("requirepass", "right")
    plain = server.url.removeprefix("redis://")

    async def write() -> None:
        for url, password in (
            (server.url, None),
            (server.url, SecretStr("wr0ng")),
            (f"redis://:wr0ng@{plain}", None),
        ):
            async with RedisState(url, LONG, password=password) as state:
                with pytest.raises(ServerError, match="refuses the user or password") as caught:
                    await state.check()
                await state.write([decision(1)])
                said = f"{caught.value} {state.error}"
                assert plain in said
                assert "wr0ng" not in said
        for url, password in (
            (server.url, SecretStr("right")),
            (f"redis://:right@{plain}", None),
        ):
            async with RedisState(url, LONG, password=password) as state:
                await state.check()
                await state.write([decision(1)])
                assert state.counts.taken == state.counts.written + state.counts.duplicate

    asyncio.run(write())


def test_what_redis_refuses_is_counted_and_the_rest_is_written(server: RedisServer) -> None:
    server.client.set(f"tickline:state:{FIRST}", "of another program")

    async def write() -> None:
        async with RedisState(server.url, LONG) as state:
            await state.write([decision(1, FIRST), decision(1, SECOND)])
            assert "WRONGTYPE" in state.refusal
            assert FIRST in state.refusal
            await state.write([decision(1, THIRD, probability=float("nan"))])
            assert "probability nan" in state.refusal
            assert (state.counts.refused, state.counts.written) == (2, 1)
            assert (state.error, balanced(state)) == (None, True)

    asyncio.run(write())


def test_the_reader_of_the_docs(server: RedisServer, monkeypatch, tmp_path: Path) -> None:
    """It sees a decision, and no signal where the key is missing, stale, or Redis is away."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "hgetall" in block]
    assert len(code.splitlines()) <= 22
    script = tmp_path / "reader.py"
    script.write_text(code)
    monkeypatch.setenv("REDIS_URL", server.url)
    reader = runpy.run_path(str(script))
    read, client = reader["read_decision"], reader["client"]

    async def write(sequence: int, ago_ns: int = 0, **changes) -> None:
        now = time.time_ns() - ago_ns
        async with RedisState(server.url, LONG, clock=lambda: now) as state:
            await state.write([decision(sequence, **changes)], [market_state(sequence)])
            assert state.counts.written == 2

    assert read(SYMBOLS[0]) is None
    asyncio.run(write(1))
    found = read(SYMBOLS[0])
    assert (found["decision"], found["sequence"]) == ("true", "1")
    second = 1_000_000_000
    asyncio.run(write(2, ago_ns=second, deadline_ns=time.time_ns() - second // 2))
    assert server.hash()["sequence"] == "2"
    assert read(SYMBOLS[0]) is None  # stale
    asyncio.run(write(3))
    assert read(SYMBOLS[0])["sequence"] == "3"
    server.client.hdel(f"tickline:state:{SYMBOLS[0]}", "decision")  # a quote alone
    assert read(SYMBOLS[0]) is None
    server.kill()
    assert read(SYMBOLS[0]) is None
    client.close()
