"""Which instrument-days a nightly run trains on and which it is tested on."""

import datetime as dt
from collections import Counter
from dataclasses import dataclass

from model_code.errors import DataError, MarketChoiceError, MarketError
from model_code.market.coverage import EARLIER_DAYS
from model_code.market.schema import InstrumentDay


@dataclass(frozen=True)
class Selection:
    """Instrument-days by purpose.

    Attributes:
        train: days before the test date, oldest first.
        test: instruments of the test date.
        warnings: what the operator should know, e.g. an instrument without a test day.
    """

    train: tuple[InstrumentDay, ...]
    test: tuple[InstrumentDay, ...]
    warnings: tuple[str, ...]


def select(
    catalog: tuple[InstrumentDay, ...],
    *,
    instruments: tuple[str, ...],
    train_days: int,
    test_date: str | None,
    where: str,
    allow_missing: tuple[str, ...] = (),
    today: dt.date = dt.date.max,
) -> Selection:
    """Choose the test date (the newest unless given) and the `train_days` dates before it.

    Args:
        catalog: the store's instrument-days.
        instruments: symbols to use; empty for all.
        train_days: at most this many dates before the test date.
        test_date: ISO date, or None for the newest.
        where: the store's URI, for messages.
        allow_missing: symbols that may have no ticks on the test date.
        today: later dates are left out with a warning.

    Raises:
        MarketError: an instrument or the test date is not in the store, the store is empty, or an
            instrument with five earlier dates or more has no ticks on the test date.
        DataError: no date before the test date.
    """
    future = sorted({day.date for day in catalog if day.date > today})
    catalog = tuple(day for day in catalog if day.date <= today)
    known = sorted({day.symbol for day in catalog})
    missing = sorted(set(instruments) - set(known))
    if missing or not known:
        raise MarketChoiceError(
            f"instruments not in the store: {', '.join(missing)}" if known else "no instruments",
            where=where,
            remedy=f"choose among {', '.join(known)}"
            if known
            else f"tickline data describe --data {where}",
        )
    wanted = set(instruments) or set(known)
    days = sorted(day for day in catalog if day.symbol in wanted)
    dates = sorted({day.date for day in days})
    newest = _date(test_date, where) if test_date else dates[-1]
    if newest not in dates:
        raise MarketChoiceError(
            f"no ticks on the test date {newest}",
            where=where,
            remedy=f"choose among {', '.join(map(str, dates[-5:]))}",
        )
    before = set([date for date in dates if date < newest][-train_days:])
    if not before:
        raise DataError(
            f"only one date ({newest}): nothing to train on before the test date",
            where=where,
            remedy="add earlier dates: the newest one is reserved for the test",
        )
    test = tuple(day for day in days if day.date == newest)
    absent = sorted(wanted - {day.symbol for day in test})
    earlier = Counter(day.symbol for day in days if day.date < newest)
    usual = [
        symbol
        for symbol in absent
        if symbol not in allow_missing
        and (symbol in instruments or earlier[symbol] >= EARLIER_DAYS)
    ]
    if usual:
        raise MarketError(
            f"no ticks on the test date {newest} for {', '.join(usual)}",
            where=where,
            remedy="wait for the missing file, or go on without: "
            + " ".join(f"--allow-missing '{symbol}'" for symbol in usual),
        )
    warnings = tuple(
        f"{symbol} has no ticks on {newest}: used for training only" for symbol in absent
    )
    if future:
        warnings += (f"dates in the future left out: {', '.join(map(str, future[:5]))}",)
    return Selection(tuple(day for day in days if day.date in before), test, warnings)


def _date(text: str, where: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise DataError(
            f"not a date: {text!r}", where=where, remedy="write it as YYYY-MM-DD"
        ) from error
