"""Time stamps of other sources as ns since 1970 in UTC; a stamp in another unit is refused.

Shapes: N rows.
"""

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

from model_code.errors import DataError
from model_code.market.readers.statement import Unit

SCALES: dict[Unit, int] = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
# electronic markets; a stamp outside is of another unit
FIRST, LAST = dt.date(1990, 1, 1), dt.date(2100, 1, 1)
_DAY_NS = 86_400 * 10**9

Stamps = npt.NDArray[np.int64]


def from_epoch(values_N: Stamps, unit: Unit, where: str, first_row: int = 1) -> Stamps:
    """Times since 1970 in `unit` as ns, (N,).

    Args:
        values_N: integers.
        unit: of the values.
        where: the file and the column, for messages.
        first_row: number of the first value, for messages.

    Raises:
        DataError: a value is not between `FIRST` and `LAST`; the message names the row and the unit
            in which it would be.
    """
    outside_N = ~_within(values_N, unit)
    if outside_N.any():
        place = int(outside_N.argmax())
        value = values_N[place]
        fitting = [other for other in SCALES if _within(values_N[place : place + 1], other)[0]]
        hint = f", but one in {fitting[0]}" if fitting else ""
        raise DataError(
            f"{value} is not a time in {unit} since 1970{hint}",
            where=f"{where}, row {first_row + place:,}",
            remedy=f"correct the unit, or write stamps between {FIRST} and {LAST}",
        )
    return values_N * SCALES[unit]


def _within(values_N: Stamps, unit: Unit) -> npt.NDArray[np.bool_]:
    epoch, per_day = dt.date(1970, 1, 1), _DAY_NS // SCALES[unit]
    low, high = ((date - epoch).days * per_day for date in (FIRST, LAST))
    return (values_N >= low) & (values_N < high)


def from_local(naive: pl.Series, zone: str, where: str) -> Stamps:
    """Local times as ns since 1970 in UTC, (N,).

    Args:
        naive: times without a zone.
        zone: of the IANA database, e.g. America/New_York.
        where: the file and the column, for messages.

    Raises:
        DataError: a time is null, or is there twice or never, because a clock was changed.
    """
    times = naive.cast(pl.Datetime("ns")).dt.replace_time_zone(
        zone, ambiguous="null", non_existent="null"
    )
    if times.null_count():
        place = int(times.is_null().arg_max() or 0)
        found = naive[place]
        why = "is missing" if found is None else f"is there twice or never in {zone}"
        raise DataError(
            f"the time {'' if found is None else found} {why}".replace("  ", " "),
            where=f"{where}, row {place + 1:,} of the batch",
            remedy="write UTC times, or leave the row out",
        )
    found_N: Stamps = times.dt.convert_time_zone("UTC").cast(pl.Int64).to_numpy()
    return found_N


def midnight_ns(date: dt.date) -> int:
    """00:00 UTC of a date in ns since 1970."""
    return (date - dt.date(1970, 1, 1)).days * _DAY_NS


def day_bounds(date: dt.date) -> tuple[int, int]:
    """First ns of a UTC date, and first ns of the next."""
    start = midnight_ns(date)
    return start, start + _DAY_NS


def known_zone(name: str) -> bool:
    """Whether the IANA database has a time zone of this name."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return False
    return True
