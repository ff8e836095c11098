"""Binance's market data as a feed: bookTicker, trade and depth events over WebSocket.

One connection for at most `most_streams` streams of a market. A connection that ends begins anew
with a larger session, so that the live path fills the windows again; so does whatever
`model_code.live.binance` finds missing inside a connection.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from infra.live.feeds import Receiver
from infra.live.venues.rest import LIMITED, BookRequests, retry_after_s
from infra.live.venues.spec import BinanceSpec, Endpoint, Market
from infra.live.venues.stamped import MOST_QUEUED, StampedConnection, stamped
from model_code.errors import ConfigError
from model_code.live.binance import Count, Instrument
from model_code.market.level2.frames import FrameError, parse_frame

STREAMS = ("bookTicker", "trade")
UNKNOWN_KIND = ("not market data", "not a bookTicker, trade, depthUpdate or REST book")
MARKETS: tuple[Market, ...] = ("spot", "usdm", "coinm")
WATCH_S = 0.25
READ_S = 0.001  # while frames wait, the socket is read this often
_SYMBOL = re.compile(r"^[^\s/@.?&#a-z]+\.(spot|usdm|coinm)$")


def by_market(symbols: Iterable[str]) -> dict[Market, list[str]]:
    """The instruments of each market.

    Raises:
        ConfigError: a symbol is not named as the venue does, or twice, or there is none.
    """
    found: dict[Market, list[str]] = {}
    for symbol in symbols:
        market = next((one for one in MARKETS if symbol.endswith(f".{one}")), None)
        if market is None or not _SYMBOL.match(symbol):
            raise ConfigError(
                f"{symbol} is no instrument of Binance",
                remedy="name it SYMBOL.spot, .usdm or .coinm: BTCUSDT.spot, BTCUSD_PERP.coinm",
            )
        if symbol in found.get(market, ()):
            raise ConfigError(f"{symbol} is named twice", remedy="name each instrument once")
        found.setdefault(market, []).append(symbol)
    if not found:
        raise ConfigError("no instruments", remedy="name them: --symbols BTCUSDT.spot")
    return found


class Binance:
    """A feed of instruments of all three markets.

    Args:
        spec: addresses and times.
        symbols: for example `BTCUSDT.spot`, `BTCUSDT.usdm`, `BTCUSD_PERP.coinm`.
        say: called with each line for the log.
        clock: ns since the epoch; each tick carries its time when the frame was read.

    Raises:
        ConfigError: a symbol is none of Binance.
    """

    def __init__(
        self,
        spec: BinanceSpec,
        symbols: Sequence[str],
        say: Callable[[str], None],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.symbols = tuple(symbols)
        self._requests: list[BookRequests] = []
        self.connections: list[Connection] = []
        per_connection = spec.most_streams // (len(STREAMS) + (spec.depth is not None))
        for market, names in by_market(symbols).items():
            endpoint: Endpoint = getattr(spec, market)
            requests = BookRequests(spec, endpoint, say)
            self._requests.append(requests)
            for first in range(0, len(names), per_connection):
                some = names[first : first + per_connection]
                self.connections.append(Connection(spec, endpoint, some, requests, say, clock))
        self._stop = asyncio.Event()

    @property
    def counts(self) -> Counter[Count]:
        """Of all instruments and connections."""
        total = Counter[Count]()
        for one in self._requests:
            total.update(one.counts)
        for connection in self.connections:
            total.update(connection.counts)
            for instrument in connection.instruments.values():
                total.update(instrument.counts)
        return total

    @property
    def state(self) -> str:
        """The counts in one line."""
        return ", ".join(f"{name} {count:,}" for name, count in sorted(self.counts.items()))

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()

    async def run(self, receiver: Receiver) -> None:
        """Hand over ticks until `stop`."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one.run()) for one in self._requests]
            tasks += [group.create_task(one.run(receiver)) for one in self.connections]
            await self._stop.wait()
            for task in tasks:
                task.cancel()


class Connection:
    """One WebSocket connection, renewed for ever."""

    def __init__(
        self,
        spec: BinanceSpec,
        endpoint: Endpoint,
        symbols: Sequence[str],
        requests: BookRequests,
        say: Callable[[str], None],
        clock: Callable[[], int],
    ) -> None:
        self._spec, self._requests, self._say, self._clock = spec, requests, say, clock
        self._endpoint = endpoint
        self.instruments = {name.rpartition(".")[0]: Instrument(name) for name in symbols}
        self.counts: Counter[Count] = Counter()
        self._session = 0
        self._heard = 0.0  # when the newest frame came, monotonic
        self._renewed = ""  # why the connection is given up

    @property
    def url(self) -> str:
        """Of the combined stream."""
        kinds = (*STREAMS, *((self._spec.depth,) if self._spec.depth else ()))
        names = [f"{name.lower()}@{kind}" for name in self.instruments for kind in kinds]
        return f"{self._endpoint.stream}/stream?streams={'/'.join(names)}"

    async def run(self, receiver: Receiver) -> None:
        """Connect, hand over, connect again; until cancelled."""
        failures = 0
        while True:
            begun, least_s = time.monotonic(), 0.0
            try:
                why = await self._serve(receiver)
            except InvalidStatus as error:
                status, headers = error.response.status_code, error.response.headers
                why = f"HTTP {status}"
                if status in LIMITED:
                    self.counts[Count.LIMITED] += 1
                    least_s = retry_after_s(headers.get("Retry-After"), self._spec.limited_s)
            except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
                why = f"{type(error).__name__}: {error}".rstrip(": ")
            failures = 0 if time.monotonic() - begun >= self._spec.stable_s else failures + 1
            wait_s = least_s + random.random() * self._longest_s(failures)  # noqa: S311
            self._say(f"{self._endpoint.stream}: {why}; connecting again in {wait_s:.1f} s")
            await asyncio.sleep(wait_s)

    def _longest_s(self, failures: int) -> float:
        doubled = self._spec.retry_s * 2.0 ** min(max(failures - 1, 0), 30)
        return min(doubled, self._spec.retry_most_s)

    async def _serve(self, receiver: Receiver) -> str:
        """One connection, until it ends; why it did."""
        spec = self._spec
        async with connect(
            self.url,
            open_timeout=spec.connect_s,
            ping_interval=spec.ping_s,
            ping_timeout=spec.ping_s,
            close_timeout=1.0,
            compression=None,  # costs latency
            max_queue=MOST_QUEUED,
            create_connection=stamped(self._clock),
        ) as connected:
            socket = cast(StampedConnection, connected)
            self._begin()
            watch = asyncio.create_task(self._watch(socket))
            try:
                await self._take(socket, receiver)
            finally:
                watch.cancel()
                self.counts[Count.DISCONNECTIONS] += 1
        return (
            self._renewed
            or f"closed by the exchange ({socket.close_code} {socket.close_reason or ''})".rstrip()
        )

    async def _take(self, socket: StampedConnection, receiver: Receiver) -> None:
        turn_at = 0.0
        async for frame, received_ns in socket.frames():
            self.frame(frame, receiver, received_ns)
            if socket.waiting and time.monotonic() - max(turn_at, socket.read_at) > READ_S:
                await asyncio.sleep(0)  # what came meanwhile is read, and gets its time
                turn_at = time.monotonic()

    def _begin(self) -> None:
        self.counts[Count.CONNECTIONS] += 1
        # larger than those of an earlier process, too
        self._session = max(self._session + 1, time.time_ns() // 1_000_000)
        for one in self.instruments.values():
            one.begin(self._session)
        self._heard, self._renewed = time.monotonic(), ""

    async def _watch(self, socket: ClientConnection) -> None:
        """Close a connection that is silent or old."""
        until = time.monotonic() + self._spec.renew_h * 3600
        while True:
            await asyncio.sleep(min(WATCH_S, self._spec.silence_s / 4))
            now = time.monotonic()
            if now - self._heard > self._spec.silence_s:
                self._renewed = f"no frame for {self._spec.silence_s:g} s"
            elif now > until:
                self._renewed = f"renewed after {self._spec.renew_h:g} h"
            else:
                continue
            await socket.close()
            return

    def frame(self, frame: str | bytes, receiver: Receiver, received_ns: int) -> None:
        """Decode a frame that was received at this time, and hand over its tick."""
        begun = time.perf_counter_ns()
        self._heard = time.monotonic()
        try:
            event = parse_frame(frame)
        except FrameError as error:
            self._unreadable(str(error))
            return
        one = self.instruments.get(event.symbol)
        if one is None:
            self.counts[Count.NOT_SUBSCRIBED] += 1
            return
        tick = one.take(event, received_ns)
        if tick is not None:
            receiver.take(tick, time.perf_counter_ns() - begun)
        elif one.needs_snapshot:
            self._requests.want(one)

    def _unreadable(self, why: str) -> None:
        """Count a frame; if it may have been a tick, of any instrument, that is a gap."""
        if why in UNKNOWN_KIND:
            self.counts[Count.UNKNOWN_EVENT] += 1
            return
        if not self.counts[Count.UNREADABLE]:
            self._say(f"{self._endpoint.stream}: a frame is unreadable: {why}; later ones count")
        self.counts[Count.UNREADABLE] += 1
        for one in self.instruments.values():
            one.miss(Count.UNREADABLE_GAPS)
