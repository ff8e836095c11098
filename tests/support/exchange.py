"""A local server of Binance's protocol: recorded frames over WebSocket, order books over HTTP.

It stands for all markets. What it sends is a script: frames, and places where the connection drops.
"""

import asyncio
import gzip
import http
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from infra.live.venues.binance import Binance
from infra.live.venues.spec import BinanceSpec, Endpoint
from model_code.live.binance import Instrument
from model_code.live.messages import Quote, Tick, Trade
from model_code.market.level2.frames import QuoteFrame, TradeFrame, parse_frame

SENT_AT_ONCE = 50
MOST_DELAY = 20  # frames


@dataclass(frozen=True)
class Drop:
    """The connection breaks; the next `lost` frames pass before the client is back."""

    lost: int = 0


Step = str | Drop
Answer = tuple[int, str, dict[str, str]]
"""HTTP status, body, headers."""


@dataclass
class Exchange:
    """Plays one script, across all connections.

    Attributes:
        steps: what is left to send.
        answers: to the next requests for order books, in place of the book.
        refusals: to the next attempts to connect.
        requests: URLs asked for, WebSocket and REST.
        done: set when the script is over.
    """

    steps: list[Step]
    answers: list[Answer] = field(default_factory=list)
    refusals: list[Answer] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    books: dict[str, "Book"] = field(default_factory=dict)
    place: int = 0
    url: str = ""

    async def connection(self, socket: ServerConnection) -> None:
        """Send the script from where it stands."""
        try:
            while self.place < len(self.steps):
                step = self.steps[self.place]
                self.place += 1
                if isinstance(step, Drop):
                    for lost in self.steps[self.place : self.place + step.lost]:
                        self._follow(lost)
                    self.place += step.lost
                    await asyncio.sleep(0.01)  # what was sent has arrived
                    socket.transport.abort()
                    return
                self._follow(step)
                await socket.send(step)
                if self.place % SENT_AT_ONCE == 0:
                    await asyncio.sleep(0)
            self.done.set()
            await socket.wait_closed()
        except ConnectionClosed:
            return

    def request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer a REST request; None for a WebSocket's."""
        self.requests.append(request.path)
        if request.path.startswith("/stream"):
            return _response(socket, *self.refusals.pop(0)) if self.refusals else None
        if self.answers:
            return _response(socket, *self.answers.pop(0))
        symbol = request.path.partition("symbol=")[2].partition("&")[0]
        book = self.books.get(symbol)
        if book is None or book.last is None:
            return _response(socket, 400, '{"code":-1121,"msg":"Invalid symbol."}', {})
        return _response(socket, 200, book.answer(), {})

    def _follow(self, step: Step) -> None:
        """Keep the exchange's own book."""
        if isinstance(step, str) and '"depthUpdate"' in step:
            data = json.loads(step)["data"]
            self.books.setdefault(data["s"], Book()).update(data)


@dataclass
class Book:
    """The exchange's order book: prices and sizes as text."""

    last: int | None = None
    bids: dict[str, str] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)

    def start(self, answer: dict[str, Any]) -> "Book":
        """Begin from a REST answer."""
        self.last, self.bids, self.asks = answer["lastUpdateId"], {}, {}
        self.bids.update(answer["bids"])
        self.asks.update(answer["asks"])
        return self

    def update(self, data: dict[str, Any]) -> None:
        """Apply a depth event."""
        if self.last is None or data["u"] <= self.last:
            return
        self.last = data["u"]
        for side, changes in ((self.bids, data["b"]), (self.asks, data["a"])):
            for price, size in changes:
                side.pop(price, None)
                if float(size):
                    side[price] = size

    def answer(self) -> str:
        """As REST answers."""
        sides = [
            sorted(map(list, side.items()), key=lambda level: sign * float(level[0]))
            for side, sign in ((self.bids, -1), (self.asks, 1))
        ]
        return json.dumps({"lastUpdateId": self.last, "bids": sides[0], "asks": sides[1]})


def _response(
    socket: ServerConnection, status: int, body: str, headers: dict[str, str]
) -> Response:
    found = socket.respond(http.HTTPStatus(status), body)
    found.headers.update(Headers(headers))
    return found


@asynccontextmanager
async def serving(exchange: Exchange) -> AsyncIterator[Exchange]:
    """The server, on a free port of this machine."""
    server: Server = await serve(
        exchange.connection, "127.0.0.1", 0, process_request=exchange.request, compression=None
    )
    async with server:
        port = next(iter(server.sockets)).getsockname()[1]
        exchange.url = f"127.0.0.1:{port}"
        yield exchange


def spec(exchange: Exchange, **changes: Any) -> BinanceSpec:
    """Addresses of the local server for all markets, and short times."""
    local = Endpoint(stream=f"ws://{exchange.url}", book=f"http://{exchange.url}/depth")
    values: dict[str, Any] = {
        "spot": local, "usdm": local, "coinm": local, "retry_s": 0.01, "retry_most_s": 0.05,
        "book_pause_s": 0.01, "stable_s": 60.0,
    }  # fmt: skip
    return BinanceSpec(**(values | changes))


class Kept:
    """A receiver that keeps what it is given."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []

    def take(self, tick: Tick, decode_ns: int = 0) -> None:
        assert decode_ns > 0
        self.ticks.append(tick)

    def of(self, symbol: str) -> list[Tick]:
        return [one for one in self.ticks if one.symbol == symbol]


def values(one: Tick) -> tuple[Any, ...]:
    """What the exchange sent of a tick."""
    if isinstance(one, Quote):
        return one.bid_price, one.bid_size, one.ask_price, one.ask_size
    assert isinstance(one, Trade)
    return one.price, one.size, one.buyer_is_maker


async def play(
    exchange: Exchange,
    symbols: Sequence[str],
    until: Callable[[Binance], bool] = lambda _: True,
    **changes: Any,
) -> tuple[Kept, Binance, list[str]]:
    """Play a script to a feed; what it handed over, the feed, its log.

    Args:
        exchange: with the script.
        symbols: to subscribe to.
        until: the script is over and this holds.
        changes: of the specification.
    """
    said: list[str] = []
    kept = Kept()
    async with serving(exchange):
        feed = Binance(spec(exchange, **changes), symbols, said.append)
        running = asyncio.create_task(feed.run(kept))
        async with asyncio.timeout(60):
            await exchange.done.wait()
            sent = -1
            while len(kept.ticks) != sent or not until(feed):
                sent = len(kept.ticks)
                await asyncio.sleep(0.02)
        feed.stop()
        await running
    return kept, feed, said


def recorded(paths: Iterable[Path], limit: int | None = None) -> tuple[list[str], dict[str, Book]]:
    """Frames of recordings in the order of their stamps, and the books of their REST lines.

    A book stands for the time of the first frame: events before it are stale to it.

    Args:
        paths: of one date.
        limit: lines of each.
    """
    lines: list[tuple[int, int, str]] = []
    books: dict[str, Book] = {}
    for place, path in enumerate(paths):
        for stamp, text in _lines(path, limit):
            if text.startswith('{"stream"'):
                lines.append((stamp, place, text))
            elif text.startswith('{"lastUpdateId"'):
                symbol = path.name.partition("_")[2].rpartition("_")[0].upper()
                books[symbol] = Book().start(json.loads(text))
    return [text for _, _, text in sorted(lines, key=lambda line: line[:2])], books


def _lines(path: Path, limit: int | None) -> Iterator[tuple[int, str]]:
    with gzip.open(path, "rt") as file:
        for number, line in enumerate(file):
            if number == limit:
                return
            stamp, _, text = line.rstrip("\n").partition(" ")
            yield int(stamp), text


def gaps(ticks: Sequence[Tick]) -> list[int]:
    """Places where the sequence or the session says that something is missing before a tick."""
    return [
        place
        for place in range(1, len(ticks))
        if ticks[place].session != ticks[place - 1].session
        or ticks[place].sequence != ticks[place - 1].sequence + 1
    ]


def kinds(steps: Iterable[Step]) -> Counter[str]:
    """How many frames of each stream's kind a script holds."""
    return Counter(
        json.loads(step)["stream"].partition("@")[2] for step in steps if isinstance(step, str)
    )


def session(
    symbol: str, n: int, seed: int = 0, *, futures: bool = False, first: int = 1000
) -> tuple[list[str], Book]:
    """A made-up recording of one instrument: frames, and the book before them.

    The sizes of quotes and trades are unique, so that each can be told apart.

    Args:
        symbol: as the exchange writes it.
        n: changes of the book.
        seed: of the random walk.
        futures: whether depth events have `pu`, and frames the exchange's stamp.
        first: update id.
    """
    rng = random.Random(seed)
    mid, number, trade_id = 10_000, first, 1
    book = Book(first, {f"{mid - k}.0": "1.0" for k in range(1, 9)},
                {f"{mid + k}.0": "1.0" for k in range(1, 9)})  # fmt: skip
    before = Book(book.last, dict(book.bids), dict(book.asks))
    changed: tuple[dict[str, str], dict[str, str]] = ({}, {})
    frames, since, previous, best = [], first + 1, first, _best(book)
    for step in range(n):
        number += rng.randint(1, 4)
        place = rng.randrange(2)
        side = (book.bids, book.asks)[place]
        away = rng.choice((1, 1, 1, 2, 3))
        top = max(map(float, book.bids)) if place == 0 else min(map(float, book.asks))
        price = f"{top + (1 - away if place == 0 else away - 1):.1f}"
        inside = f"{top + (1 if place == 0 else -1):.1f}"
        if rng.random() < 0.1 and inside not in book.bids and inside not in book.asks:
            price = inside
        size = f"{step + 2}.5"
        if price in side and len(side) > 5 and rng.random() < 0.15:
            size = "0.0"
            del side[price]
            new = max(side, key=float) if place == 0 else min(side, key=float)
            side[new] = changed[place][new] = f"{step + 2}.75"
        else:
            side[price] = size
        changed[place][price] = size
        stamp = {"T": 1_723_161_600_000 + step} if futures else {}
        if _best(book) != best:
            best = _best(book)
            frames.append(stream(symbol, "bookTicker", u=number, s=symbol, **stamp,
                                 b=best[0], B=best[1], a=best[2], A=best[3]))  # fmt: skip
        if rng.random() < 0.3:
            frames.append(stream(symbol, "trade", e="trade", s=symbol, t=trade_id, **stamp,
                                 p=best[0], q=f"{trade_id}.25", m=True))  # fmt: skip
            trade_id += 1
        if step % 3 == 2:
            chain = {"pu": previous} if futures else {}
            frames.append(stream(symbol, "depth@100ms", e="depthUpdate", s=symbol, U=since,
                                 u=number, **chain, b=[*map(list, changed[0].items())],
                                 a=[*map(list, changed[1].items())]))  # fmt: skip
            since, previous, changed = number + 1, number, ({}, {})
    return frames, before


def stream(symbol: str, kind: str, **data: Any) -> str:
    """One frame of a combined stream."""
    named = {"stream": f"{symbol.lower()}@{kind}", "data": data}
    return json.dumps(named, separators=(",", ":"))


def _best(book: Book) -> tuple[str, str, str, str]:
    bid, ask = max(book.bids, key=float), min(book.asks, key=float)
    return bid, book.bids[bid], ask, book.asks[ask]


def faulty(
    steps: Sequence[str], seed: int, *, repeats: int = 0, delays: int = 0, drops: int = 0
) -> list[Step]:
    """The script with faults at random places.

    Args:
        steps: without faults.
        seed: of the places.
        repeats: frames that come again, up to 30 frames later.
        delays: frames that come up to `MOST_DELAY` frames too late.
        drops: broken connections; up to 40 frames pass meanwhile.
    """
    rng = random.Random(seed)
    found: list[Step] = list(steps)
    for _ in range(repeats):
        place = rng.randrange(len(found) - 1)
        found.insert(min(place + rng.randint(1, 30), len(found)), found[place])
    for _ in range(delays):
        place = rng.randrange(len(found) - 1)
        step = found.pop(place)
        found.insert(min(place + rng.randint(1, MOST_DELAY), len(found)), step)
    for _ in range(drops):
        found.insert(rng.randrange(1, len(found)), Drop(rng.randrange(40)))
    return found


def ticks_of(steps: Iterable[Step], symbol: str) -> list[Tick]:
    """What the frames of an instrument are, read one by one, without any state."""
    found = []
    for step in steps:
        event = parse_frame(step) if isinstance(step, str) else None
        if isinstance(event, QuoteFrame | TradeFrame) and event.symbol == symbol:
            one = Instrument(f"{symbol}.any").take(event, 1)
            assert one is not None
            found.append(one)
    return found


def unnoticed(kept: Sequence[Tick], sent: Sequence[Tick], within: int) -> list[int]:
    """Places where something is missing and no gap says so.

    Args:
        kept: what was handed over of one instrument.
        sent: what the exchange sent of it, in order; all values differ.
        within: ticks after which a gap must say so: a quote that comes late is only then known to
            be missing.

    Raises:
        AssertionError: a tick was handed over twice or out of order.
    """
    said, found = [*gaps(kept), len(kept)], []
    for kind in (Quote, Trade):
        known = {values(one): place for place, one in enumerate(_only(kind, sent))}
        assert len(known) == len(_only(kind, sent))
        last, since = None, 0
        for place, one in enumerate(kept):
            if not isinstance(one, kind):
                continue
            at = known[values(one)]
            assert last is None or at > last, f"tick {place} is out of order"
            missing = last is not None and at > last + 1
            if missing and not any(since < gap <= place + within for gap in said):
                found.append(place)
            last, since = at, place
    return found


def _only(kind: type[Tick], ticks: Iterable[Tick]) -> list[Tick]:
    return [one for one in ticks if isinstance(one, kind)]
