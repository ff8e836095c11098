"""One Binance instrument's frames as quotes and trades, numbered so that a gap cannot pass unseen.

The exchange's own numbers say what was missed:

- trades count without holes: a jump of the trade id is a gap
- quotes (`bookTicker`) carry the order book's update id, which grows with holes: a smaller one came
  too late. Between two quotes nothing says that one is missing, so the order book is the check: the
  newest quote up to an event's update id must be the best of the book after this event.
- depth events continue each other, see `market.level2.book`

On a gap a sequence number is skipped, and the live path fills the instrument's window again. Frames
that repeat are left out. Nothing is sorted in.
"""

from collections import Counter, deque
from enum import StrEnum

from model_code.live.messages import Quote, Tick, Trade
from model_code.market.level2.book import OrderBook
from model_code.market.level2.frames import (
    BookSnapshot,
    BookUpdate,
    Event,
    QuoteFrame,
    TradeFrame,
)

MS_NS = 1_000_000
MOST_RECENT = 4096  # quotes that are remembered: depth events come up to 100 ms later
MOST_UNCHECKED = 1024
MOST_MISSING = 10_000  # trade ids that are remembered as missing
MOST_BEHIND = 1000  # frames in a row with old ids, after which the exchange counts anew
MOST_MS = (2**63 - 1) // MS_NS
Best = tuple[float, ...]
"""Best bid, its size, best ask, its size."""


class Count(StrEnum):
    """What is counted of an instrument or a connection."""

    QUOTES = "quotes"
    TRADES = "trades"
    DEPTH = "depth events"
    REPEATED = "repeated frames"
    LATE = "late frames"
    TRADES_MISSED = "trades missed"
    TRADE_GAPS = "gaps in trades"
    QUOTE_GAPS = "gaps in quotes"
    DEPTH_GAPS = "gaps in depth"
    RENUMBERED = "ids that began anew"
    UNREADABLE = "unreadable frames"
    UNREADABLE_GAPS = "gaps by unreadable frames"
    UNKNOWN_EVENT = "frames of another kind"
    NOT_SUBSCRIBED = "frames of another instrument"
    SNAPSHOTS = "books from REST"
    SNAPSHOTS_TOO_OLD = "books from REST too old"
    SNAPSHOTS_FAILED = "books from REST failed"
    LIMITED = "rate limits"
    CONNECTIONS = "connections"
    DISCONNECTIONS = "disconnections"


class Instrument:
    """Takes an instrument's events in the order of receipt.

    Args:
        symbol: of the ticks, for example `BTCUSDT.spot`.

    Attributes:
        counts: see `Count`.
    """

    def __init__(self, symbol: str) -> None:
        self.symbol, self.counts = symbol, Counter[Count]()
        self._quote_id: int | None = None
        self._trade_id: int | None = None
        self._forget()
        self.begin(0)

    def begin(self, session: int) -> None:
        """A new connection: its first ticks need not follow those before, but must be newer.

        Args:
            session: of the messages from now on; larger than those before.
        """
        self.session, self._sequence = session, 0
        self._trades_follow = False
        self._start_book()

    @property
    def needs_snapshot(self) -> bool:
        """Whether depth events wait for the REST book."""
        return not self.book.complete and self.book.received > 0

    def take(self, event: Event, local_ns: int) -> Tick | None:
        """Take the next event.

        Args:
            event: of this instrument.
            local_ns: when it was received.

        Returns:
            Its tick; None if it carries none, repeats or came too late.
        """
        if isinstance(event, QuoteFrame):
            return self._quote(event, local_ns)
        if isinstance(event, TradeFrame):
            return self._trade(event, local_ns)
        if isinstance(event, BookUpdate):
            self._update(event)
        return None

    def snapshot(self, event: BookSnapshot) -> bool:
        """Take the REST book; return whether there is a complete book now.

        If not, it is older than the first event that was received: ask again.
        """
        if self.book.complete:
            return True
        self.counts[Count.SNAPSHOTS] += 1
        self.book.snapshot(event)
        if not self.book.complete:
            self.counts[Count.SNAPSHOTS_TOO_OLD] += 1
        return self.book.complete

    def miss(self, what: Count, missed: int = 1) -> None:
        """Something was missed: skip sequence numbers, so that the window fills again."""
        self.counts[what] += 1
        self._sequence += missed

    def _quote(self, event: QuoteFrame, local_ns: int) -> Quote | None:
        number, best = event.update_id, event[1:5]
        if number is None:
            self.miss(Count.UNREADABLE_GAPS)
            return None
        if self._quote_id is not None and number <= self._quote_id:
            if any(number == known for known, _ in self._recent):
                self.counts[Count.REPEATED] += 1
            else:  # a newer one was handed over before it
                self.counts[Count.LATE] += 1
                self.miss(Count.QUOTE_GAPS)
            self._behind_by_one(Count.QUOTES)
            return None
        self._behind[Count.QUOTES] = 0
        self._check_quotes(number)
        self._quote_id = number
        self._recent.append((number, best))
        self.counts[Count.QUOTES] += 1
        self._sequence += 1
        return Quote(
            symbol=self.symbol,
            sequence=self._sequence,
            session=self.session,
            local_ns=local_ns,
            exchange_ns=_ns(event.exchange_ms),
            bid_price=event.bid_price,
            bid_size=event.bid_size,
            ask_price=event.ask_price,
            ask_size=event.ask_size,
        )

    def _trade(self, event: TradeFrame, local_ns: int) -> Trade | None:
        number, before = event.trade_id, self._trade_id
        if before is not None and number <= before:
            late = number in self._missing
            self._missing.discard(number)
            self.counts[Count.LATE if late else Count.REPEATED] += 1
            self._behind_by_one(Count.TRADES)
            return None
        missed = 0 if before is None else number - before - 1
        if before is not None and missed:
            oldest = number - MOST_MISSING
            self._missing -= {one for one in self._missing if one < oldest}
            self._missing.update(range(max(before + 1, oldest), number))
            self.counts[Count.TRADES_MISSED] += missed
            if self._trades_follow:  # otherwise the new session says it
                self.miss(Count.TRADE_GAPS, missed)
        self._trades_follow, self._behind[Count.TRADES] = True, 0
        self._trade_id = number
        self.counts[Count.TRADES] += 1
        self._sequence += 1
        return Trade(
            symbol=self.symbol,
            sequence=self._sequence,
            session=self.session,
            local_ns=local_ns,
            exchange_ns=_ns(event.exchange_ms),
            price=event.price,
            size=event.size,
            buyer_is_maker=event.buyer_is_maker,
        )

    def _update(self, event: BookUpdate) -> None:
        self.counts[Count.DEPTH] += 1
        was_complete, gaps = self.book.complete, self.book.gaps
        if self.book.update(event):
            row = self.book.row(1)
            if row is not None:
                self._unchecked.append((event.last, tuple(row)))
                self._check_quotes(self._quote_id)
        elif was_complete and self.book.gaps > gaps:
            self.miss(Count.DEPTH_GAPS)
            self._unchecked.clear()

    def _check_quotes(self, number: int | None) -> None:
        """Compare the quotes with each book up to whose update id all of them have come.

        Args:
            number: update id of the newest quote; those before it have come, or never will.
        """
        while self._unchecked and number is not None and self._unchecked[0][0] < number:
            book_id, best = self._unchecked.popleft()
            shown = next((one for known, one in reversed(self._recent) if known <= book_id), None)
            if shown is not None and shown != best:
                self.miss(Count.QUOTE_GAPS)
                self._start_book()  # either of them may be the wrong one

    def _behind_by_one(self, kind: Count) -> None:
        self._behind[kind] += 1
        if self._behind[kind] > MOST_BEHIND:
            self._forget()
            self.miss(Count.RENUMBERED)
            self._start_book()

    def _forget(self) -> None:
        self._quote_id = None
        self._trade_id = None
        self._missing: set[int] = set()
        self._recent: deque[tuple[int, Best]] = deque(maxlen=MOST_RECENT)
        self._behind: Counter[Count] = Counter()

    def _start_book(self) -> None:
        self.book = OrderBook()
        self._unchecked: deque[tuple[int, Best]] = deque(maxlen=MOST_UNCHECKED)


def _ns(exchange_ms: int | None) -> int | None:
    return None if exchange_ms is None or exchange_ms > MOST_MS else exchange_ms * MS_NS
