"""Order books from Binance's REST interface, one request at a time for a market."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable

import httpx

from infra.live.venues.spec import BinanceSpec, Endpoint
from model_code.live.binance import Count, Instrument
from model_code.market.level2.frames import BookSnapshot, FrameError, parse_frame

LIMITED = (429, 418)
MOST_PAUSE_S = 3 * 86_400.0  # the exchange's longest ban


class BookRequests:
    """Fetches the order books that instruments need.

    Args:
        spec: times and levels.
        endpoint: of the market.
        say: called with each line for the log.

    Attributes:
        counts: rate limits and failures.
    """

    def __init__(self, spec: BinanceSpec, endpoint: Endpoint, say: Callable[[str], None]) -> None:
        self._spec, self._url, self._say = spec, endpoint.book, say
        self._queue: asyncio.Queue[Instrument] = asyncio.Queue()
        self._queued: set[str] = set()
        self._pause_s = spec.book_pause_s
        self.counts: Counter[Count] = Counter()

    def want(self, one: Instrument) -> None:
        """Fetch an instrument's book, unless that is to be done already."""
        if one.symbol not in self._queued:
            self._queued.add(one.symbol)
            self._queue.put_nowait(one)

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(timeout=self._spec.connect_s) as client:
            while True:
                one = await self._queue.get()
                if one.needs_snapshot and not await self._fetch(client, one):
                    loop.call_later(self._spec.retry_most_s, self._again, one)
                else:
                    self._again(one)
                pause_s, self._pause_s = self._pause_s, self._spec.book_pause_s
                await asyncio.sleep(pause_s)

    def _again(self, one: Instrument) -> None:
        self._queued.discard(one.symbol)
        if one.needs_snapshot:
            self.want(one)

    async def _fetch(self, client: httpx.AsyncClient, one: Instrument) -> bool:
        """One request; False if it failed, so that the next one for the instrument waits."""
        symbol = one.symbol.rpartition(".")[0]
        limit = str(self._spec.book_levels)
        try:
            answer = await client.get(self._url, params={"symbol": symbol, "limit": limit})
        except httpx.HTTPError as error:
            return self._failed(one, f"{type(error).__name__}: {error}")
        if answer.status_code in LIMITED:
            self._limited(answer)
            return True
        if answer.status_code != httpx.codes.OK:
            return self._failed(one, f"HTTP {answer.status_code} {answer.text[:200]}")
        try:
            event = parse_frame(answer.content)
        except FrameError as error:
            return self._failed(one, f"unreadable: {error}")
        if not isinstance(event, BookSnapshot) or event.symbol not in (symbol, ""):
            return self._failed(one, "another answer than this instrument's book")
        if not one.snapshot(event):
            self._say(f"{one.symbol}: the REST book is older than the stream; asking again")
        return True

    def _failed(self, one: Instrument, why: str) -> bool:
        self.counts[Count.SNAPSHOTS_FAILED] += 1
        self._say(f"{one.symbol}: no order book from {self._url}: {why}")
        return False

    def _limited(self, answer: httpx.Response) -> None:
        self.counts[Count.LIMITED] += 1
        self._pause_s = retry_after_s(answer.headers.get("Retry-After"), self._spec.limited_s)
        self._say(f"{self._url}: HTTP {answer.status_code}, no requests for {self._pause_s:g} s")


def retry_after_s(header: str | None, otherwise_s: float) -> float:
    """The pause that a `Retry-After` header asks for, in s.

    Args:
        header: seconds, as the exchange sends them; None without one.
        otherwise_s: if it is missing or no number of seconds.
    """
    try:
        seconds = float(header or "nan")
    except ValueError:
        seconds = math.nan
    return min(seconds, MOST_PAUSE_S) if seconds >= 0 else otherwise_s
