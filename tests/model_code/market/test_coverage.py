import dataclasses
import datetime as dt

import pytest

from model_code.market.coverage import RECENT_DAYS, DaySpan, Shortfall, shortfalls
from model_code.settings import ValidationSpec

FIRST_DATE = dt.date(2024, 8, 1)
SPEC = ValidationSpec(minimum_row_share=0.25, truncated_fraction=0.1)


def span(
    place: int,
    rows: int = 1000,
    first: str = "09:00",
    last: str = "17:00",
    trades: int | None = None,
    symbol: str = "A",
) -> DaySpan:
    date = FIRST_DATE + dt.timedelta(days=place)
    ends = [
        dt.datetime.combine(date, dt.time.fromisoformat(text), dt.UTC) for text in (first, last)
    ]
    return DaySpan(date, symbol, rows, ends[0], ends[1], trades)


def usual(count: int = 5, trades: int | None = None, symbol: str = "A") -> list[DaySpan]:
    return [span(i, trades=trades, symbol=symbol) for i in range(count)]


def judge(days: list[DaySpan], closes: dt.datetime | None = None) -> tuple[Shortfall, ...]:
    return shortfalls(days, SPEC, lambda _: closes)


def texts(days: list[DaySpan], closes: dt.datetime | None = None) -> list[str]:
    found = judge(days, closes)
    assert all(item.failure and item.day is days[-1] for item in found)
    return [item.text for item in found]


def test_days_like_the_earlier_ones_are_whole() -> None:
    assert judge(usual(30, trades=10)) == ()


def test_with_fewer_than_five_earlier_days_too_few_rows_are_only_a_warning() -> None:
    short = span(4, rows=100, first="16:00")
    assert judge([*usual(4), short]) == (
        Shortfall(
            short,
            "truncated: 100 rows, 1,000 on other days, expected at least 25% of that",
            failure=False,
        ),
    )


def test_the_first_days_are_compared_with_all_others() -> None:
    short = span(0, rows=100)
    found = judge([short, span(1), span(2)])
    assert [(item.day, item.failure) for item in found] == [(short, False)]
    assert judge([short]) == ()


@pytest.mark.parametrize(("rows", "whole"), [(249, False), (250, True)])
def test_fewer_rows_than_the_share_of_the_earlier_days_median_fail(rows: int, whole: bool) -> None:
    earlier = [span(i, rows=count) for i, count in enumerate((1, 900, 1000, 5000, 6000))]
    day = span(5, rows=rows)
    found = [item for item in judge([*earlier, day]) if item.day is day]
    assert [(item.text, item.failure) for item in found] == (
        []
        if whole
        else [("truncated: 249 rows, 1,000 on other days, expected at least 25% of that", True)]
    )


def test_only_the_most_recent_days_count() -> None:
    old = [span(i, rows=100_000) for i in range(50)]
    recent = [span(50 + i) for i in range(RECENT_DAYS)]
    day = span(50 + RECENT_DAYS)
    assert [item for item in judge([*old, *recent, day]) if item.day is day] == []


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("09:48", "17:00", []),
        ("09:49", "17:00", ["truncated: first row at 09:49:00 UTC, usually 09:00:00"]),
        ("09:00", "16:12", []),
        ("09:00", "16:11", ["truncated: last row at 16:11:00 UTC, usually 17:00:00"]),
        (
            "10:00",
            "16:00",
            [
                "truncated: first row at 10:00:00 UTC, usually 09:00:00",
                "truncated: last row at 16:00:00 UTC, usually 17:00:00",
            ],
        ),
    ],
)
def test_a_day_that_begins_late_or_ends_early_fails(
    first: str, last: str, expected: list[str]
) -> None:
    assert texts([*usual(), span(5, first=first, last=last)]) == expected


def test_a_session_that_daylight_saving_moves_by_an_hour_is_whole() -> None:
    winter = [span(i, first="14:30", last="21:00") for i in range(5)]
    assert judge([*winter, span(5, first="13:30", last="20:00")]) == ()
    summer = [span(i, first="13:30", last="20:00") for i in range(5)]
    assert judge([*summer, span(5, first="14:30", last="21:00")]) == ()
    assert texts([*winter, span(5, first="13:30", last="19:00")]) == [
        "truncated: last row at 19:00:00 UTC, usually 21:00:00"
    ]


def test_an_early_close_of_the_exchange_is_the_end_of_the_session() -> None:
    closes = dt.datetime(2024, 8, 6, 13, tzinfo=dt.UTC)
    whole = [*usual(), span(5, last="13:00")]
    assert judge(whole, closes) == ()
    assert texts(whole) == ["truncated: last row at 13:00:00 UTC, usually 17:00:00"]
    assert texts([*usual(), span(5, last="12:00")], closes) == [
        "truncated: last row at 12:00:00 UTC, usually 13:00:00"
    ]


def test_fewer_trades_than_the_share_fail_where_there_are_trades() -> None:
    assert texts([*usual(trades=100), span(5, trades=24)]) == [
        "truncated: 24 trades, 100 on other days, expected at least 25% of that"
    ]
    assert judge([*usual(trades=100), span(5, trades=25)]) == ()
    assert judge([*usual(trades=100), span(5)]) == ()
    assert judge([*usual(), span(5, trades=1)]) == ()


def test_instruments_are_compared_with_their_own_days_only() -> None:
    quiet = [span(i, rows=10, symbol="B") for i in range(6)]
    assert judge([*usual(6), *quiet]) == ()


def test_a_day_without_a_clean_row_fails_by_its_count_alone() -> None:
    day = DaySpan(FIRST_DATE + dt.timedelta(days=5), "A", 0, None, None, None)
    assert texts([*usual(), day]) == [
        "truncated: 0 rows, 1,000 on other days, expected at least 25% of that"
    ]


def test_a_day_that_is_short_by_nature_is_noted_and_never_fails() -> None:
    sunday = dataclasses.replace(span(5, rows=10, first="16:00"), short=True)
    found = judge([*usual(5), sunday])
    assert [item.day for item in found] == [sunday, sunday]
    assert not any(item.failure for item in found)
