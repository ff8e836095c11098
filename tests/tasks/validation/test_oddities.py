"""What looks odd on a day against the instrument's other days."""

import datetime as dt
from typing import Any

import pytest

from model_code.market.quality import DayReport
from tasks.validation.oddities import oddities, too_few

FIRST = dt.date(2024, 8, 1)
SESSION = tuple((minute, 10, 0) for minute in range(13 * 60, 20 * 60))


def day(number: int, symbol: str = "BTCUSDT", **changes: Any) -> DayReport:
    """A whole day, so many days after the first; rows and spread vary a little."""
    values: dict[str, Any] = {
        "date": FIRST + dt.timedelta(days=number),
        "symbol": symbol,
        "rows": 10_000 + 100 * (number - 3),
        "clean": 10_000,
        "quarantined": 0,
        "spread_bps": 0.8 + 0.001 * (number - 3),
        "faults": {},
        "expectations": (),
        "passed": True,
        "failures": (),
        "remedies": (),
        "minutes": SESSION,
        "samples": (),
    }
    return DayReport(**(values | changes))


def week(**odd: Any) -> list[DayReport]:
    """Seven days, the fifth with these changes."""
    return [day(number, **(odd if number == 4 else {})) for number in range(7)]


def test_days_that_vary_a_little_are_not_odd() -> None:
    assert oddities(week()) == ()
    assert too_few(week()) == ()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rows": 23_000}, "2.3x the rows of its median day (23,000, median 10,000)"),
        ({"rows": 400}, "0.04x the rows of its median day (400, median 9,900)"),
        ({"spread_bps": 4.0}, "5.0x the median spread of its median day (4 bps, median 0.8 bps)"),
        ({"quarantined": 90}, "0.89% of rows quarantined, 0.00% on its median day"),
        (
            {"minutes": SESSION[: 5 * 60]},
            "no rows from 18:00 to 20:00 UTC, when other days have some",
        ),
        (
            {"minutes": ((190, 1, 0), *SESSION, (1390, 1, 0))},
            "rows from 03:00 to 04:00, 23:00 to 24:00 UTC, when other days have none",
        ),
    ],
)
def test_an_odd_day_is_named_with_its_figure_and_the_medians(
    changes: dict[str, Any], text: str
) -> None:
    (found,) = oddities(week(**changes))
    assert (found.date, found.symbol, found.text) == (FIRST + dt.timedelta(days=4), "BTCUSDT", text)
    assert found.size > 1


def test_a_market_that_varies_a_lot_needs_more_to_be_odd() -> None:
    wild = [day(number, rows=rows) for number, rows in enumerate((50, 100, 200, 400, 800, 1600))]
    assert oddities(wild) == ()
    (found,) = oddities([*wild, day(6, rows=10_000_000)])
    assert found.date == FIRST + dt.timedelta(days=6)


def test_one_odd_day_hides_no_other() -> None:
    days = [day(number, rows=rows) for number, rows in enumerate((9, 9, 9, 9, 900, 900_000, 9))]
    assert [item.date.day for item in oddities(days)] == [6, 5]  # the largest first


def test_the_test_days_oddities_come_first() -> None:
    days = week(rows=900_000)
    days[6] = day(6, rows=20_000)
    assert [item.date.day for item in oddities(days)] == [5, 7]
    assert [item.date.day for item in oddities(days, days[6].date)] == [7, 5]


def test_few_days_are_not_compared() -> None:
    few = week(rows=900_000)[1:5]
    assert oddities(few) == ()
    assert too_few(few) == ("BTCUSDT (4 of 5)",)
    assert too_few([*week(), day(0, "ETHUSDT")]) == ("ETHUSDT (1 of 5)",)
    assert oddities([]) == ()
    assert too_few([]) == ()


def test_instruments_are_compared_with_themselves() -> None:
    other = [day(number, "ETHUSDT", rows=10 + number % 2) for number in range(7)]
    assert oddities([*week(), *other]) == ()


def test_an_fx_sunday_is_shorter_by_nature() -> None:
    sunday = day(3, profile="fx", rows=200, minutes=SESSION[-60:])
    assert sunday.date.isoweekday() == 7
    weekdays = [day(number, profile="fx") for number in (0, 1, 4, 5, 6)]
    assert oddities([*weekdays, sunday]) == ()
    always_open = [*weekdays, sunday.model_copy(update={"profile": "crypto"})]
    assert {item.date for item in oddities(always_open)} == {sunday.date}


def test_reports_of_earlier_versions_have_no_spread() -> None:
    assert oddities([day(number, spread_bps=None) for number in range(7)]) == ()
