"""Is a day whole? Its rows, first and last row against the instrument's other days."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from model_code.settings import ValidationSpec

EARLIER_DAYS = 5  # fewer have no median to go by
RECENT_DAYS = 20


@dataclass(frozen=True)
class DaySpan:
    """What one instrument-day covers.

    Attributes:
        rows: clean rows.
        first, last: earliest and latest clean row, UTC; None without any.
        trades: trades in the source; None if it has none.
        short: shorter than other days by nature, as an FX Sunday; compared, but it never fails.
    """

    date: dt.date
    symbol: str
    rows: int
    first: dt.datetime | None
    last: dt.datetime | None
    trades: int | None
    short: bool = False


@dataclass(frozen=True)
class Shortfall:
    """One way in which a day is not whole; a warning where the other days are too few to judge."""

    day: DaySpan
    text: str
    failure: bool


EarlyClose = Callable[[dt.date], dt.datetime | None]


def shortfalls(
    days: Sequence[DaySpan], spec: ValidationSpec, early_close: EarlyClose
) -> tuple[Shortfall, ...]:
    """Compare each day with the instrument's earlier days, at most `RECENT_DAYS` of them.

    With `EARLIER_DAYS` or more, a day fails that has less than `minimum_row_share` of their median
    rows or trades, or that begins later or ends earlier than their median by more than
    `truncated_fraction` of the median session and is that much shorter than it. With fewer, too few
    rows are a warning.

    Args:
        days: of all instruments.
        spec: thresholds.
        early_close: when the exchange closes early on a date, UTC; None: at its usual time.
    """
    found: list[Shortfall] = []
    for symbol in sorted({day.symbol for day in days}):
        own = sorted((day for day in days if day.symbol == symbol), key=lambda day: day.date)
        for place, day in enumerate(own):
            earlier = own[max(0, place - RECENT_DAYS) : place]
            enough = len(earlier) >= EARLIER_DAYS
            others = earlier if enough else [other for other in own if other is not day]
            fails = enough and not day.short
            found += [Shortfall(day, text, fails) for text in _counts(day, others, spec)]
            if enough:
                found += [
                    Shortfall(day, text, fails)
                    for text in _ends(day, earlier, spec, early_close(day.date))
                ]
    return tuple(found)


def _counts(day: DaySpan, others: Sequence[DaySpan], spec: ValidationSpec) -> Iterator[str]:
    counts = [("rows", day.rows, [other.rows for other in others])]
    known = [other.trades for other in others if other.trades is not None]
    if day.trades is not None:
        counts.append(("trades", day.trades, known))
    for what, count, usual in counts:
        if usual and count < spec.minimum_row_share * median(usual):
            yield (
                f"truncated: {count:,} {what}, {median(usual):,.0f} on other days, expected at "
                f"least {spec.minimum_row_share * 100:g}% of that"
            )


def _ends(
    day: DaySpan,
    earlier: Sequence[DaySpan],
    spec: ValidationSpec,
    closes: dt.datetime | None,
) -> Iterator[str]:
    begins = [_seconds(other.first, other.date) for other in earlier if other.first]
    ends = [_seconds(other.last, other.date) for other in earlier if other.last]
    if not begins or not ends or day.first is None or day.last is None:
        return
    begin, end = median(begins), median(ends)
    allowed = spec.truncated_fraction * (end - begin)
    if closes is not None:
        end = min(end, _seconds(closes, day.date))
    if (day.last - day.first).total_seconds() >= end - begin - allowed:
        return  # whole at another hour: daylight saving moves a session in UTC
    if _seconds(day.first, day.date) > begin + allowed:
        yield f"truncated: first row at {day.first:%H:%M:%S} UTC, usually {_clock(begin)}"
    if _seconds(day.last, day.date) < end - allowed:
        yield f"truncated: last row at {day.last:%H:%M:%S} UTC, usually {_clock(end)}"


def _seconds(moment: dt.datetime, date: dt.date) -> float:
    return (moment - dt.datetime.combine(date, dt.time(), dt.UTC)).total_seconds()


def _clock(seconds: float) -> str:
    whole = min(int(seconds), 86_399)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
