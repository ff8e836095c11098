"""Rows in time order: which rows of a stream do their neighbours contradict?

Shapes: N rows, K of them out of order.
"""

import mmap
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_code.compiled import compiled

Stamps = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
IN_MEMORY = 1 << 22  # rows of one stretch out of order; a longer one is kept in temporary files


def in_order(time_ns_N: Stamps) -> Booleans:
    """True on the rows of a longest sequence whose time never goes back, (N,).

    The other rows are the fewest that must go. One stamp 30 s ahead of its neighbours is one such
    row; the rows after it are not. Source: Fredman 1975, "On computing the length of longest
    increasing subsequences" (patience sorting, O(N log N)).
    """
    kept = np.ones(len(time_ns_N), np.bool_)
    if len(time_ns_N) > 1 and bool((np.diff(time_ns_N) < 0).any()):
        _longest(_Columns.of(np.ascontiguousarray(time_ns_N, np.int64)), kept)
    return kept


@dataclass(frozen=True)
class Disorder:
    """The rows of a stream that `in_order` leaves out.

    Attributes:
        row_K: their places in the stream, ascending.
        outside_ns_K: how far each lies outside the kept rows around it.
    """

    row_K: Stamps
    outside_ns_K: Stamps

    def within(self, start: int, count: int) -> "Disorder":
        """Those of `count` rows from `start` on; places count from there."""
        low, high = np.searchsorted(self.row_K, (start, start + count))
        return Disorder(self.row_K[low:high] - start, self.outside_ns_K[low:high])


NONE = Disorder(np.empty(0, np.int64), np.empty(0, np.int64))


class Order:
    """`in_order` of a stream that is read in chunks: the same rows for every size of chunk.

    Between two chunks of which no row of the first part is later than one of the second, the
    stream falls into parts of which each can be judged alone. Only parts in disorder are kept, in
    temporary files if they are long.
    """

    def __init__(self) -> None:
        self._size: list[int] = []
        self._low: list[int] = []
        self._high: list[int] = []
        self._sorted: list[bool] = []

    def add(self, time_ns: Stamps) -> None:
        """Take the next chunk."""
        some = len(time_ns) > 0
        self._size.append(len(time_ns))
        self._sorted.append(not bool((time_ns[1:] < time_ns[:-1]).any()))
        self._low.append(int(time_ns.min()) if some else np.iinfo(np.int64).max)
        self._high.append(int(time_ns.max()) if some else np.iinfo(np.int64).min)

    @property
    def kept(self) -> bool:
        """Whether no row is out of order."""
        return all(self._sorted) and bool(self._cuts().all())

    def _cuts(self) -> Booleans:
        """Whether the part ends after each chunk."""
        highest = np.maximum.accumulate(np.array(self._high, np.int64))
        lowest = np.minimum.accumulate(np.array(self._low, np.int64)[::-1])[::-1]
        return np.append(highest[:-1] <= lowest[1:], True)[: len(self._size)]

    def find(self, chunks: Iterable[Stamps]) -> Disorder:
        """The rows out of order.

        Args:
            chunks: the same stamps in the same chunks once more; not read if all are in order.
        """
        if self.kept:
            return NONE
        found, start, filled = _Found(), 0, 0
        ends = np.flatnonzero(self._cuts()) + 1
        sizes = iter(np.diff(np.cumsum([0, *self._size])[np.append(0, ends)]).tolist())
        is_end = np.zeros(len(self._size), np.bool_)
        is_end[ends - 1] = True
        part: _Columns | None = None
        for time, end in zip(chunks, is_end, strict=True):
            if part is None:
                part, filled = _Columns.empty(next(sizes)), 0
            part.fill(filled, time)
            filled += len(time)
            if end:
                found.add(part, start)
                start, part = start + filled, None
        return found.disorder()


class _Found:
    """Rows out of order of consecutive parts; the neighbours may be in another part."""

    def __init__(self) -> None:
        self._row: list[Stamps] = []
        self._outside: list[Stamps] = []
        self._previous: int | None = None  # the newest kept stamp
        self._waiting = 0  # of the newest rows, those without a kept row after them

    def add(self, part: "_Columns", start: int) -> None:
        time = part.time
        if not len(time):
            return
        kept = np.ones(len(time), np.bool_)
        _longest(part, kept)
        row, before, after = _neighbours(kept)
        first = int(np.argmax(kept))
        self._follow(int(time[first]))
        late = np.zeros(len(row), np.int64)
        if self._previous is not None:
            late = np.where(before < 0, self._previous - time[row], 0)
        late = np.where(before >= 0, time[np.maximum(before, 0)] - time[row], late)
        early = np.where(after >= 0, time[row] - time[np.maximum(after, 0)], 0)
        self._row += [row + start]
        self._outside += [np.maximum(late, early)]
        self._time = time[row]
        self._waiting = int((after < 0).sum())
        self._previous = int(time[len(kept) - 1 - int(np.argmax(kept[::-1]))])

    def _follow(self, following: int) -> None:
        if self._waiting:
            last = slice(-self._waiting, None)
            outside = self._outside[-1]
            outside[last] = np.maximum(outside[last], self._time[last] - following)

    def disorder(self) -> Disorder:
        return Disorder(np.concatenate(self._row), np.concatenate(self._outside))


class _Columns:
    """What patience sorting keeps of N rows: their stamps and two numbers for each.

    Long columns lie in temporary files that are mapped and released piece by piece, so that they
    take disk, not memory.
    """

    def __init__(self, time: Stamps, last: Stamps, before: Stamps, maps: list[mmap.mmap]) -> None:
        self.time, self.last, self.before, self._maps = time, last, before, maps

    @classmethod
    def of(cls, time: Stamps) -> "_Columns":
        return cls(time, np.empty_like(time), np.empty_like(time), [])

    @classmethod
    def empty(cls, rows: int) -> "_Columns":
        if rows <= IN_MEMORY:
            return cls.of(np.empty(rows, np.int64))
        maps = []
        for _ in range(3):
            with tempfile.TemporaryFile() as file:
                file.truncate(8 * rows)
                maps.append(mmap.mmap(file.fileno(), 8 * rows))
        time, last, before = (np.frombuffer(each, np.int64) for each in maps)
        return cls(time, last, before, maps)

    def fill(self, start: int, time: Stamps) -> None:
        self.time[start : start + len(time)] = time
        self.release()

    def release(self) -> None:
        for each in self._maps:
            each.madvise(mmap.MADV_DONTNEED)  # the pages go to the file


def _longest(columns: _Columns, kept: Booleans) -> None:
    """Set `kept` to the rows of a longest sequence that never goes back."""
    n, length = len(kept), 0
    if not bool((columns.time[1:] < columns.time[:-1]).any()):
        return
    for start in range(0, n, IN_MEMORY):
        length = _place(
            columns.time, columns.last, columns.before, start, min(start + IN_MEMORY, n), length
        )
        columns.release()
    kept[:] = False
    row = int(columns.last[length - 1])
    for start in range((n - 1) // IN_MEMORY * IN_MEMORY, -1, -IN_MEMORY):
        row = _chain(columns.before, row, start, kept)
        columns.release()


@compiled
def _place(time_N, last_N, before_N, start, stop, length):  # type: ignore[no-untyped-def]
    """Patience sorting of rows [start, stop); last[k]: row that ends the best k + 1 rows."""
    for i in range(start, stop):
        low, high = 0, length
        if length and time_N[last_N[length - 1]] <= time_N[i]:
            low = length
        while low < high:
            middle = (low + high) // 2
            if time_N[last_N[middle]] <= time_N[i]:
                low = middle + 1
            else:
                high = middle
        before_N[i] = last_N[low - 1] if low else -1
        last_N[low] = i
        length = max(length, low + 1)
    return length


@compiled
def _chain(before_N, row, start, kept_N):  # type: ignore[no-untyped-def]
    while row >= start:
        kept_N[row] = True
        row = before_N[row]
    return row


@compiled
def _neighbours(kept_N):  # type: ignore[no-untyped-def]
    """The rows not kept, and the kept rows before and after each; -1 where there is none."""
    count = 0
    for i in range(len(kept_N)):
        count += not kept_N[i]
    row_K = np.empty(count, np.int64)
    before_K, after_K = np.full(count, -1), np.full(count, -1)
    k, open_k, newest = 0, 0, -1
    for i in range(len(kept_N)):
        if kept_N[i]:
            newest = i
            while open_k < k:
                after_K[open_k] = i
                open_k += 1
        else:
            row_K[k], before_K[k] = i, newest
            k += 1
    return row_K, before_K, after_K


def count_before(sorted_M: Stamps, time_N: Stamps) -> Stamps:
    """How many of the sorted stamps are strictly before each time, (N,)."""
    if len(time_N) > 1 and bool((np.diff(time_N) < 0).any()):
        return np.searchsorted(sorted_M, time_N, side="left")
    found: Stamps = _merge(sorted_M, time_N)
    return found


@compiled
def _merge(sorted_M, time_N):  # type: ignore[no-untyped-def]
    found = np.empty(len(time_N), np.int64)
    k = 0
    for i in range(len(time_N)):
        while k < len(sorted_M) and sorted_M[k] < time_N[i]:
            k += 1
        found[i] = k
    return found
