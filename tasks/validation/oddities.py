"""What looks odd on a day against the instrument's other days. Nothing here fails a day."""

import datetime as dt
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from model_code.market.quality import DayReport

DAYS_NEEDED = 5  # fewer have no median to go by
SUNDAY = 7  # an FX market opens in its evening: its Sundays are compared with nothing
DEVIATIONS = 4.0  # from the median, in standard deviations estimated by the MAD
TO_SIGMA = 1.4826  # MAD of a normal distribution to its standard deviation
LEAST_RATIO = 1.5  # smaller changes of rows or spread are never odd
LEAST_SHARE = 0.001  # smaller changes of the quarantined share are never odd
USUAL, UNUSUAL = 0.8, 0.2  # share of the days that have an hour


@dataclass(frozen=True)
class Oddity:
    """One way in which a day differs from the instrument's median day.

    Attributes:
        text: with the day's figure and the median's.
        size: distance from the median over the distance that counts as odd; above 1.
    """

    date: dt.date
    symbol: str
    text: str
    size: float


def oddities(days: Sequence[DayReport], test_date: dt.date | None = None) -> tuple[Oddity, ...]:
    """Compare rows, spread, quarantined share and hours of each day with the instrument's median.

    The spread of the days around the median is the median absolute deviation (MAD), so that one
    odd day hides no other.

    Args:
        days: of all instruments. An instrument with fewer than `DAYS_NEEDED` is left out.
        test_date: its oddities come first, then the largest.
    """
    found = [
        item
        for own in _by_symbol(days).values()
        if len(own) >= DAYS_NEEDED
        for item in (*_levels(own), *_hours(own))
    ]
    return tuple(sorted(found, key=lambda item: (item.date != test_date, -item.size)))


def too_few(days: Sequence[DayReport]) -> tuple[str, ...]:
    """The instruments with too few days to compare, each with its number of days."""
    return tuple(
        f"{symbol} ({len(own)} of {DAYS_NEEDED})"
        for symbol, own in _by_symbol(days).items()
        if len(own) < DAYS_NEEDED
    )


def _by_symbol(days: Sequence[DayReport]) -> dict[str, list[DayReport]]:
    found: dict[str, list[DayReport]] = {}
    for day in days:
        own = found.setdefault(day.symbol, [])
        if day.profile != "fx" or day.date.isoweekday() != SUNDAY:
            own.append(day)
    return found


def _levels(days: Sequence[DayReport]) -> Iterator[Oddity]:
    yield from _ratios(days, "rows", lambda day: day.rows, "{:,.0f}")
    yield from _ratios(days, "median spread", lambda day: day.spread_bps, "{:.3g} bps")
    usual = median(day.fault_fraction for day in days)
    allowed = _allowed([day.fault_fraction for day in days], LEAST_SHARE)
    for day in days:
        if day.fault_fraction - usual > allowed:
            text = f"{day.fault_fraction:.2%} of rows quarantined, {usual:.2%} on its median day"
            yield Oddity(day.date, day.symbol, text, (day.fault_fraction - usual) / allowed)


def _ratios(
    days: Sequence[DayReport], what: str, value: Callable[[DayReport], float | None], form: str
) -> Iterator[Oddity]:
    known = [(day, found) for day in days if (found := value(day))]
    if len(known) < DAYS_NEEDED:
        return
    usual = median(found for _, found in known)
    allowed = _allowed([math.log(found) for _, found in known], math.log(LEAST_RATIO))
    for day, found in known:
        if abs(math.log(found / usual)) > allowed:
            ratio = f"{found / usual:.1f}" if found > usual / 10 else f"{found / usual:.2g}"
            text = (
                f"{ratio}x the {what} of its median day "
                f"({form.format(found)}, median {form.format(usual)})"
            )
            yield Oddity(day.date, day.symbol, text, abs(math.log(found / usual)) / allowed)


def _allowed(values: Sequence[float], least: float) -> float:
    """The distance from the median that is not odd."""
    middle = median(values)
    mad = median(abs(value - middle) for value in values)
    return max(DEVIATIONS * TO_SIGMA * mad, least)


def _hours(days: Sequence[DayReport]) -> Iterator[Oddity]:
    present = [{minute // 60 for minute, _, _ in day.minutes} for day in days]
    share = {hour: sum(hour in own for own in present) / len(days) for hour in range(24)}
    for day, own in zip(days, present, strict=True):
        missing = [hour for hour in range(24) if share[hour] >= USUAL and hour not in own]
        extra = [hour for hour in range(24) if share[hour] <= UNUSUAL and hour in own]
        if missing:
            text = f"no rows from {_spans(missing)} UTC, when other days have some"
            yield Oddity(day.date, day.symbol, text, 1.0 + len(missing))
        if extra:
            text = f"rows from {_spans(extra)} UTC, when other days have none"
            yield Oddity(day.date, day.symbol, text, 1.0 + len(extra))


def _spans(hours: Sequence[int]) -> str:
    """Hours as spans: [3, 4, 9] are `03:00 to 05:00, 09:00 to 10:00`."""
    starts = [hour for hour in hours if hour - 1 not in hours]
    ends = [hour + 1 for hour in hours if hour + 1 not in hours]
    return ", ".join(f"{a:02d}:00 to {b:02d}:00" for a, b in zip(starts, ends, strict=True))
