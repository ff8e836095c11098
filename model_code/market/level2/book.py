"""An order book rebuilt from snapshots and difference events, by the exchange's rules.

Source: developers.binance.com, 'How to manage a local order book correctly' (spot: U, u; futures:
U, u, pu).

1. Events wait until a snapshot comes. Those that end before it are dropped.
2. The first event applied must cover the snapshot's update id: spot U <= id + 1 <= u, futures
   U <= id <= u, or follow it exactly (pu = id).
3. Every later event must continue the one before it: spot U = previous u + 1, futures pu =
   previous u. Otherwise events are missing: the book is discarded until the next snapshot.
"""

import math
from bisect import bisect_left, insort
from collections import deque

from model_code.market.level2.frames import BookSnapshot, BookUpdate, Levels

MOST_WAITING = 10_000  # events kept for a snapshot; if older ones are needed, that is a gap


class OrderBook:
    """One instrument's book.

    Attributes:
        received: events given to `update`.
        applied: events in the book.
        stale: events dropped, because they end before the snapshot or repeat.
        gaps: times that events were missing and the book was discarded.
        crossed: rows asked for while the best bid was at or above the best ask.
        one_sided: rows asked for while one side was empty.
    """

    def __init__(self) -> None:
        self.received = self.applied = self.stale = self.gaps = 0
        self.crossed = self.one_sided = 0
        self._bids, self._asks = _Side(-1.0), _Side(1.0)
        self._last: int | None = None  # newest update id; None: no book
        self._first = True  # whether the next event is the first one after a snapshot
        self._waiting: deque[BookUpdate] = deque(maxlen=MOST_WAITING)

    @property
    def complete(self) -> bool:
        """Whether there is a book: a snapshot came, and no event has been missing since."""
        return self._last is not None

    def update(self, event: BookUpdate) -> bool:
        """Take one event; return whether the book has changed and is complete."""
        self.received += 1
        return self._take(event)

    def snapshot(self, event: BookSnapshot) -> bool:
        """Start from a snapshot; return whether there is a complete book that it has changed.

        A snapshot that is older than the book is ignored.
        """
        if self._last is not None and event.last <= self._last:
            return False
        self._bids.replace(event.bids)
        self._asks.replace(event.asks)
        self._last, self._first = event.last, True
        waiting, self._waiting = self._waiting, deque(maxlen=MOST_WAITING)
        for update in waiting:
            self._take(update)
        return self._last is not None

    def row(self, levels: int) -> list[float] | None:
        """Prices, then sizes of the best bids, then of the best asks; NaN where there are fewer.

        None where there is no book, it is crossed, or it has one side only; the last two are
        counted.
        """
        if self._last is None:
            return None
        bids, asks = self._bids.best(levels), self._asks.best(levels)
        if not bids or not asks:
            self.one_sided += 1
            return None
        if bids[0][0] >= asks[0][0]:
            self.crossed += 1
            return None
        return [*_flat(bids, levels), *_flat(asks, levels)]

    def _take(self, event: BookUpdate) -> bool:
        if self._last is None:
            self._waiting.append(event)
            return False
        if event.last < self._last or (event.last == self._last and not self._repeats_well(event)):
            self.stale += 1
            return False
        if not self._continues(event):
            self.gaps += 1
            self._last = None
            self._waiting.append(event)
            return False
        self._bids.change(event.bids)
        self._asks.change(event.asks)
        self._last, self._first = event.last, False
        self.applied += 1
        return True

    def _repeats_well(self, event: BookUpdate) -> bool:
        """Futures' rule: an event that ends exactly at the snapshot is the first one applied."""
        return self._first and event.previous is not None

    def _continues(self, event: BookUpdate) -> bool:
        assert self._last is not None  # noqa: S101  the caller's condition
        if event.previous is None:
            begins = event.first <= self._last + 1
            return begins if self._first else event.first == self._last + 1
        covers = self._first and event.first <= self._last
        return covers or event.previous == self._last


class _Side:
    """Levels of one side; keys are prices times `sign`, so that the best is the smallest."""

    def __init__(self, sign: float) -> None:
        self._sign = sign
        self._keys: list[float] = []  # ascending
        self._sizes: dict[float, float] = {}

    def replace(self, levels: Levels) -> None:
        self._keys, self._sizes = [], {}
        self.change(levels)

    def change(self, levels: Levels) -> None:
        for price, size in levels:
            key = self._sign * price
            if size == 0.0:
                if self._sizes.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            else:
                if key not in self._sizes:
                    insort(self._keys, key)
                self._sizes[key] = size

    def best(self, levels: int) -> Levels:
        return tuple([(self._sign * key, self._sizes[key]) for key in self._keys[:levels]])


def _flat(levels: Levels, count: int) -> list[float]:
    missing = [math.nan] * (count - len(levels))
    prices, sizes = zip(*levels, strict=True)
    return [*prices, *missing, *sizes, *missing]
