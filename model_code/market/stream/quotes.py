"""What the whole day says about its quotes: the clock, and the book that judges trades.

Shapes: N quote rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_code.market.order import Disorder, Order, Stamps, count_before
from model_code.market.schema import floats, stamps
from model_code.market.stream.rows import Rows
from model_code.market.trade_check import two_sided

COLUMNS = ("timestamp", "bid_price", "ask_price")
RESOLUTIONS = (("1 s", 10**9), ("100 ms", 10**8), ("1 ms", 10**6), ("1 us", 10**3))

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Book:
    """Usable quotes of one instrument-day in time order; every array is (N,)."""

    time_ns: Stamps
    bid: Floats
    ask: Floats

    def take(self, chosen: Booleans | slice) -> "Book":
        """The chosen rows."""
        return Book(self.time_ns[chosen], self.bid[chosen], self.ask[chosen])

    def followed_by(self, other: "Book") -> "Book":
        """The rows of both."""
        return Book(
            np.concatenate([self.time_ns, other.time_ns]),
            np.concatenate([self.bid, other.bid]),
            np.concatenate([self.ask, other.ask]),
        )

    def before(self, time_ns: Stamps) -> Stamps:
        """Newest row strictly before each time; the first row where there is none."""
        return np.maximum(count_before(self.time_ns, time_ns) - 1, 0)


EMPTY = Book(np.empty(0, np.int64), np.empty(0), np.empty(0))


@dataclass(frozen=True)
class QuoteFacts:
    """Figures of all N quotes of a day.

    Attributes:
        rows: N.
        disorder: rows that their neighbours' stamps contradict.
        first, last: stamps of the first and last row that they do not; None without rows.
        earliest, latest: of all stamps; None without rows.
        resolution: the coarsest usual clock that all stamps are multiples of, e.g. `1 ms`.
        unusable: of the two-sided quotes alone, those that their neighbours contradict. The others
            are the book.
        tightest_bps: tightest positive spread of the book, in bps of the mid; 0 if there is none.
        lowest, highest: least bid and greatest ask of the book; NaN without a book.
    """

    rows: int
    disorder: Disorder
    first: int | None
    last: int | None
    earliest: int | None
    latest: int | None
    resolution: str
    unusable: Disorder
    tightest_bps: float
    lowest: float
    highest: float


class QuoteScan:
    """Gathers `QuoteFacts` from the chunks of a day.

    Args:
        where: the quotes' file, for messages.
    """

    def __init__(self, where: str = "") -> None:
        self._where = where
        self._all, self._sane = Order(), Order()
        self._clock = Resolution()
        self._ends, self._range, self._book = _Ends(), _Ends(), _BookFigures()
        self._rows = 0

    def add(self, chunk: pa.Table) -> None:
        """Take the next chunk; it has `COLUMNS`.

        Raises:
            DataError: a time stamp is null.
        """
        time, sane = stamps(chunk, self._where), two_sided_rows(chunk)
        self._rows += len(time)
        self._all.add(time)
        self._sane.add(sane.time_ns)
        self._clock.add(time)
        self._range.add(time)
        self._ends.add(time)
        self._book.add(sane)

    def facts(self, rows: Rows) -> QuoteFacts:
        """The figures; a day with rows out of order is read again.

        Args:
            rows: whose chunks were added.
        """
        disorder = self._all.find(stamps(chunk) for chunk in rows.chunks(("timestamp",)))
        unusable = self._sane.find(two_sided_rows(c).time_ns for c in rows.chunks(COLUMNS))
        ends, book = self._ends, self._book
        if len(disorder.row_K):
            ends, start = _Ends(), 0
            for chunk in rows.chunks(("timestamp",)):
                time = stamps(chunk)
                ends.add(np.delete(time, disorder.within(start, len(time)).row_K))
                start += len(time)
        if len(unusable.row_K):
            book = _BookFigures()
            for part in books(rows, unusable):
                book.add(part)
        return QuoteFacts(
            rows=self._rows,
            disorder=disorder,
            first=ends.first,
            last=ends.last,
            earliest=self._range.low,
            latest=self._range.high,
            resolution=self._clock.name,
            unusable=unusable,
            tightest_bps=book.tightest_bps,
            lowest=book.lowest,
            highest=book.highest,
        )


def scan_quotes(rows: Rows, where: str = "") -> QuoteFacts:
    """The figures of all quotes of a day.

    Raises:
        DataError: a time stamp is null.
    """
    scan = QuoteScan(where)
    for chunk in rows.chunks(COLUMNS):
        scan.add(chunk)
    return scan.facts(rows)


def books(rows: Rows, unusable: Disorder) -> Iterator[Book]:
    """The book of each chunk.

    Args:
        rows: the quotes.
        unusable: see `QuoteFacts`.
    """
    start = 0
    for chunk in rows.chunks(COLUMNS):
        sane = two_sided_rows(chunk)
        count = len(sane.time_ns)
        odd = unusable.within(start, count).row_K
        if len(odd):
            kept = np.ones(count, np.bool_)
            kept[odd] = False
            sane = sane.take(kept)
        start += count
        yield sane


def two_sided_rows(chunk: pa.Table) -> Book:
    """The rows with a sane two-sided quote, in source order."""
    time = stamps(chunk)
    bid, ask = (floats(chunk, name) for name in COLUMNS[1:])
    with np.errstate(invalid="ignore"):
        sane = two_sided(bid, ask)
    found = Book(time, bid, ask)
    return found if sane.all() else found.take(sane)


class Resolution:
    """The coarsest usual clock that all stamps are multiples of."""

    def __init__(self) -> None:
        self._left = list(RESOLUTIONS)

    def add(self, time_ns: Stamps) -> None:
        """Take the next stamps."""
        first = time_ns[:1000]  # mostly enough to rule a clock out
        self._left = [
            (name, unit)
            for name, unit in self._left
            if not (first % unit).any() and not (time_ns % unit).any()
        ]

    @property
    def name(self) -> str:
        """E.g. `1 ms`."""
        return self._left[0][0] if self._left else "1 ns"


def resolution(time_ns: Stamps) -> str:
    """The coarsest usual clock that all stamps are multiples of, e.g. `1 ms`."""
    found = Resolution()
    found.add(time_ns)
    return found.name


class _Ends:
    def __init__(self) -> None:
        self.first: int | None = None
        self.last: int | None = None
        self.low: int | None = None
        self.high: int | None = None

    def add(self, time: Stamps) -> None:
        if not len(time):
            return
        low, high = int(time.min()), int(time.max())
        if self.first is None or self.low is None or self.high is None:
            self.first, self.low, self.high = int(time[0]), low, high
        self.last = int(time[-1])
        self.low, self.high = min(self.low, low), max(self.high, high)


class _BookFigures:
    def __init__(self) -> None:
        self._tightest, self.lowest, self.highest = np.inf, np.nan, np.nan

    def add(self, book: Book) -> None:
        if not len(book.time_ns):
            return
        spread = book.ask - book.bid
        positive = spread > 0
        if positive.any():
            tightest = (spread[positive] / (book.ask + book.bid)[positive]).min()
            self._tightest = min(self._tightest, float(tightest))
        self.lowest = float(np.fmin(self.lowest, book.bid.min()))
        self.highest = float(np.fmax(self.highest, book.ask.max()))

    @property
    def tightest_bps(self) -> float:
        return 2e4 * self._tightest if np.isfinite(self._tightest) else 0.0
