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
# sums of a day in long double, so that a long day stays accurate
Sums = npt.NDArray[np.longdouble]


@dataclass(frozen=True)
class Traded:
    """What was traded before each row; every array is (N,).

    Attributes:
        before: trades known to be earlier than the row.
        price: of the newest of them.
        total, value: size, and price times size, of all of them.
        bought, sold: size since the previous row, by aggressor.
        count: trades since the previous row.
    """

    before: Stamps
    price: Floats
    total: Sums
    value: Sums
    bought: Floats
    sold: Floats
    count: npt.NDArray[np.int32]

    @classmethod
    def joined(cls, parts: "list[Traded]") -> "Traded":
        """The rows of all parts, one after the other."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, chosen: slice) -> "Traded":
        """The chosen rows."""
        values: list[Any] = [getattr(self, field.name)[chosen] for field in fields(self)]
        return Traded(*values)

    @classmethod
    def empty(cls, rows: int) -> "Traded":
        """Rows before which nothing was traded."""
        long = np.zeros(rows, np.longdouble)
        return cls(
            np.zeros(rows, np.int64), np.full(rows, np.nan), long, long.copy(),
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
        self._total = self._value = np.zeros(1, np.longdouble)  # before the first kept, and on
        self._dropped, self._price = 0, np.nan  # trades before the kept, and the newest price
        self._counted: int | None = None  # trades before the newest row

    def traded(self, time_ns: Stamps, sequence: Stamps) -> Traded:
        """What was traded before the next rows.

        Args:
            time_ns: (N,) stamps that never go back, nor behind those of earlier calls.
            sequence: (N,) their places in the source's order of quotes and trades.
        """
        parts, done = [Traded.empty(0)], 0
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
        return Traded.joined(parts)

    def finish(self) -> None:
        """Read the trades after the last row."""
        for _ in self._pieces:
            pass

    def _settle(self, time_ns: Stamps, sequence: Stamps) -> Traded:
        trades, n = self._trades, len(time_ns)
        numbers = trades.sequence
        known = _earlier(trades.time_ns, numbers, time_ns, sequence)
        before = known + self._dropped
        if self._counted is None:
            self._counted = int(before[0])
        highest = np.maximum.accumulate(np.append(self._counted, before))
        price = np.append(self._price, trades.price)[known]
        bought, sold, count = np.zeros(n), np.zeros(n), np.zeros(n, np.int32)
        if self._volumes:
            # a row's trades are [low, before) of the sorted trades; none is counted by two rows
            low = np.minimum(highest[:-1], before)
            bought, sold = _volumes(low - self._dropped, known, trades.size, trades.sell)
            count = (before - low).astype(np.int32)
        self._counted = int(highest[-1])
        return Traded(before, price, self._total[known], self._value[known], bought, sold, count)

    def _pull(self, time_ns: int) -> None:
        """Drop the trades that no later row needs, and read the next piece."""
        trades = self._trades
        drop = int(np.searchsorted(trades.time_ns, time_ns))
        if self._volumes and self._counted is not None:
            drop = min(drop, max(self._counted - self._dropped, 0))
        if drop:
            self._price = float(trades.price[drop - 1])
            self._dropped += drop
            trades = trades.take(slice(drop, None))
            self._total, self._value = self._total[drop:], self._value[drop:]
        piece = next(self._pieces, None)
        if piece is None:
            self._trades, self._complete = trades, True
            return
        self._trades = Trades.joined([trades, piece])
        self._total = _further(self._total, piece.size)
        self._value = _further(self._value, piece.price * piece.size)


def _further(sums: Sums, values: Floats) -> Sums:
    """The running sums, and those of the values that follow."""
    more = np.cumsum(np.append(sums[-1], values), dtype=np.longdouble)
    return np.concatenate([sums, more[1:]])


@compiled
def _earlier(time_M, number_M, time_N, number_N):  # type: ignore[no-untyped-def]
    """How many trades are known to be earlier than each row: by stamp, then by number."""
    found_N = np.empty(len(time_N), np.int64)
    numbered = len(number_M) > 0 and len(number_N) > 0
    k = 0
    for i in range(len(time_N)):
        while k < len(time_M) and time_M[k] < time_N[i]:
            k += 1
        found_N[i] = k
        if numbered:
            j = k
            while j < len(time_M) and time_M[j] == time_N[i] and number_M[j] < number_N[i]:
                j += 1
            found_N[i] = j
    return found_N


@compiled
def _volumes(low_N, high_N, size_M, sell_M):  # type: ignore[no-untyped-def]
    """Bought and sold size of the trades [low, high) of each row."""
    bought_N, sold_N = np.zeros(len(low_N)), np.zeros(len(low_N))
    for i in range(len(low_N)):
        for k in range(low_N[i], high_N[i]):
            if sell_M[k]:
                sold_N[i] += size_M[k]
            else:
                bought_N[i] += size_M[k]
    return bought_N, sold_N
