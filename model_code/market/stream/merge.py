"""Rows and trades merged in the order of time: what was traded before each row.

Shapes: N rows, M trades.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled
from model_code.market.order import Stamps
from model_code.market.trades import NO_TRADES, Trades

Floats = npt.NDArray[np.float64]
Sums = npt.NDArray[np.longdouble]


@dataclass(frozen=True)
class Traded:
    """What was traded before each row; every array is (N,).

    Attributes:
        before: trades known to be earlier than the row.
        price: of the newest of them.
        vwap: of all of them; NaN without any.
        bought, sold: size since the previous row, by aggressor.
        count: trades since the previous row.
    """

    before: Stamps
    price: Floats
    vwap: Floats
    bought: Floats
    sold: Floats
    count: npt.NDArray[np.int32]

    @classmethod
    def joined(cls, parts: "list[Traded]") -> "Traded":
        """The rows of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, chosen: slice) -> "Traded":
        """The chosen rows."""
        values: list[Any] = [getattr(self, field.name)[chosen] for field in fields(self)]
        return Traded(*values)

    @classmethod
    def empty(cls, rows: int) -> "Traded":
        """Rows before which nothing was traded."""
        return cls(
            np.zeros(rows, np.int64), np.full(rows, np.nan), np.full(rows, np.nan),
            np.zeros(rows), np.zeros(rows), np.zeros(rows, np.int32),
        )  # fmt: skip

    def put(self, rows: Stamps | npt.NDArray[np.bool_], values: "Traded") -> None:
        """Set some rows."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(values, field.name)


class TradeMerge:
    """Trades before rows that come in time order; it keeps the trades around the newest row.

    Args:
        pieces: usable trades in time order.
        volumes: whether rows count the trades since the row above; the first row counts none.
    """

    def __init__(self, pieces: Iterator[Trades], *, volumes: bool = True) -> None:
        self._pieces, self._volumes = pieces, volumes
        self._trades, self._complete = NO_TRADES, False
        self._sums = np.longdouble(0), np.longdouble(0)  # of size, and of price times size
        # of the trades before the first kept, and on
        self._price, self._vwap = np.full(1, np.nan), np.full(1, np.nan)
        self._dropped = 0
        self._counted: int | None = None  # trades before the newest row

    def traded(self, time_ns: Stamps, sequence: Stamps) -> Traded:
        """What was traded before the next rows.

        Args:
            time_ns: (N,) stamps that never go back, nor behind those of earlier calls.
            sequence: (N,) their places in the source's order of quotes and trades.
        """
        parts: list[Traded] = []
        done = 0
        while done < len(time_ns):
            settled = len(time_ns)
            if not self._complete:
                newest = self._trades.time_ns[-1:]
                settled = int(np.searchsorted(time_ns, newest[0])) if len(newest) else 0
            if settled > done:
                parts.append(self._settle(time_ns[done:settled], sequence[done:settled]))
                done = settled
            if done < len(time_ns):
                self._pull(int(time_ns[done]))
        return Traded.joined(parts or [Traded.empty(0)])

    def finish(self) -> None:
        """Read the trades after the last row."""
        for _ in self._pieces:
            pass

    def _settle(self, time_ns: Stamps, sequence: Stamps) -> Traded:
        trades = self._trades
        counted = -1 if self._counted is None else self._counted - self._dropped
        known, bought, sold, count, counted = _before(
            trades.time_ns, trades.sequence, trades.size, trades.sell, time_ns, sequence, counted
        )
        self._counted = counted + self._dropped
        price, vwap = self._price[known], self._vwap[known]
        if not self._volumes:
            bought, sold, count = np.zeros_like(bought), np.zeros_like(sold), np.zeros_like(count)
        return Traded(known + self._dropped, price, vwap, bought, sold, count)

    def _pull(self, time_ns: int) -> None:
        """Drop the trades that no later row needs, and read the next piece."""
        trades = self._trades
        drop = int(np.searchsorted(trades.time_ns, time_ns))
        if self._volumes and self._counted is not None:
            drop = min(drop, max(self._counted - self._dropped, 0))
        if drop:
            self._dropped += drop
            trades = trades.take(slice(drop, None))
            self._price, self._vwap = self._price[drop:], self._vwap[drop:]
        piece = next(self._pieces, None)
        if piece is None:
            self._trades, self._complete = trades, True
            return
        self._trades = Trades.joined([trades, piece])
        total = _further(self._sums[0], piece.size)
        value = _further(self._sums[1], piece.price * piece.size)
        if len(total):
            self._sums = total[-1], value[-1]
        self._price = np.concatenate([self._price, piece.price])
        self._vwap = np.concatenate([self._vwap, (value / total).astype(np.float64)])


def _further(before: np.longdouble, values: Floats) -> Sums:
    """Running sums in long double, so that a long day stays accurate."""
    sums: Sums = np.cumsum(np.append(before, values), dtype=np.longdouble)[1:]
    return sums


@compiled
def _before(  # type: ignore[no-untyped-def]
    time_M, number_M, size_M, sell_M, time_N, number_N, counted
):
    """How many trades are known to be earlier than each row, and those since the row above.

    Earlier is by stamp, then by number. A row's trades are [low, known) of the sorted trades; none
    is counted by two rows, and the first row (`counted` is negative) counts none.
    """
    n, m = len(time_N), len(time_M)
    known_N, count_N = np.empty(n, np.int64), np.zeros(n, np.int32)
    bought_N, sold_N = np.zeros(n), np.zeros(n)
    numbered = len(number_M) > 0 and len(number_N) > 0
    k = 0
    for i in range(n):
        while k < m and time_M[k] < time_N[i]:
            k += 1
        known = k
        if numbered:
            while known < m and time_M[known] == time_N[i] and number_M[known] < number_N[i]:
                known += 1
        known_N[i] = known
        if counted < 0:
            counted = known
        for j in range(max(counted, 0), known):
            if sell_M[j]:
                sold_N[i] += size_M[j]
            else:
                bought_N[i] += size_M[j]
        count_N[i] = max(known - counted, 0)
        counted = max(counted, known)
    return known_N, bought_N, sold_N, count_N, counted
