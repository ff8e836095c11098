"""Frames behind a slow receiver carry the time at which they were read from the socket."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from infra.live.venues import binance
from infra.live.venues.binance import Binance
from infra.live.venues.stamped import StampedConnection, stamped
from model_code.live.messages import Tick
from tests.support.exchange import Exchange, session, spec

SECOND = 1_000_000_000


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = SECOND

    def __call__(self) -> int:
        return self.now_ns


class Slow:
    """A receiver that takes a second for each tick."""

    def __init__(self, clock: Clock) -> None:
        self.ticks: list[Tick] = []
        self._clock = clock

    def take(self, tick: Tick, decode_ns: int = 0) -> None:
        assert decode_ns > 0
        self.ticks.append(tick)
        self._clock.now_ns += SECOND


def wire(texts: Sequence[str]) -> bytes:
    """The bytes of these messages."""
    return b"".join(Frame(Opcode.TEXT, one.encode()).serialize(mask=False) for one in texts)


@asynccontextmanager
async def bursts(*parts: Sequence[str]) -> AsyncIterator[str]:
    """The address of a server that sends each part at once, the next when the client asks."""

    async def send(socket: ServerConnection) -> None:
        for part in parts:
            socket.transport.write(wire(part))
            await socket.recv()

    async with serve(send, "127.0.0.1", 0, compression=None) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


def test_ticks_behind_a_slow_receiver_carry_their_time_of_receipt() -> None:
    clock = Clock()
    frames = [one for one in session("AAA", 60)[0] if "bookTicker" in one][:10]

    async def run() -> list[Tick]:
        slow, lines = Slow(clock), list[str]()
        async with bursts(frames) as url:
            exchange = Exchange([], url=url)
            feed = Binance(spec(exchange, depth=None), ["AAA.spot"], lines.append, clock)
            running = asyncio.create_task(feed.run(slow))
            async with asyncio.timeout(30):
                while len(slow.ticks) < len(frames):
                    await asyncio.sleep(0)
            feed.stop()
            await running
        return slow.ticks

    ticks = asyncio.run(run())
    assert clock.now_ns == SECOND * (1 + len(frames))
    assert [one.local_ns for one in ticks] == [SECOND] * len(frames)


def test_what_is_read_later_carries_a_later_time() -> None:
    clock = Clock()

    async def run() -> list[tuple[str | bytes, int]]:
        found = []
        async with (
            bursts(["a", "b"], ["c"]) as url,
            connect(f"ws://{url}", create_connection=stamped(clock)) as socket,
        ):
            assert isinstance(socket, StampedConnection)
            async for frame, received_ns in socket.frames():
                found.append((frame, received_ns))
                if frame == "b":
                    assert socket.waiting == 0
                    clock.now_ns += SECOND
                    await socket.send("the next part")
                elif frame == "c":
                    await socket.send("the end")
        return found

    assert asyncio.run(run()) == [("a", SECOND), ("b", SECOND), ("c", 2 * SECOND)]


@pytest.mark.parametrize("parts", [2, 5])
def test_a_message_in_parts_has_one_time(parts: int) -> None:
    clock = Clock()

    async def send(socket: ServerConnection) -> None:
        await socket.send("x" for _ in range(parts))
        await socket.send("whole")
        await socket.close()

    async def run() -> list[tuple[str | bytes, int]]:
        async with serve(send, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            url = f"ws://127.0.0.1:{port}"
            async with connect(url, create_connection=stamped(clock)) as socket:
                assert isinstance(socket, StampedConnection)
                return [one async for one in socket.frames()]

    assert asyncio.run(run()) == [("x" * parts, SECOND), ("whole", SECOND)]


def test_the_socket_is_read_while_frames_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binance, "READ_S", -1.0)  # after each frame
    clock, sockets = Clock(), list[ServerConnection]()
    frames = [one for one in session("AAA", 60)[0] if "bookTicker" in one][:5]

    class Sends(Slow):
        """The exchange sends the last frame while the first one is taken."""

        def take(self, tick: Tick, decode_ns: int = 0) -> None:
            if not self.ticks:
                os.write(sockets[0].transport.get_extra_info("socket").fileno(), wire(frames[-1:]))
            super().take(tick, decode_ns)

    async def send(socket: ServerConnection) -> None:
        sockets.append(socket)
        socket.transport.write(wire(frames[:-1]))
        await socket.wait_closed()

    async def run() -> list[int]:
        kept = Sends(clock)
        async with serve(send, "127.0.0.1", 0, compression=None) as server:
            url = f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            feed = Binance(
                spec(Exchange([], url=url), depth=None), ["AAA.spot"], lambda _: None, clock
            )
            running = asyncio.create_task(feed.run(kept))
            async with asyncio.timeout(30):
                while len(kept.ticks) < len(frames):
                    await asyncio.sleep(0)
            feed.stop()
            await running
        return [one.local_ns // SECOND for one in kept.ticks]

    found = asyncio.run(run())
    assert found[:4] == [1, 1, 1, 1]
    assert 2 <= found[4] < len(frames)  # not after all that waited
