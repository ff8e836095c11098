import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from model_code.errors import ConfigError
from model_code.market.calendar import ALWAYS_OPEN, due, early_close, known, silences

NEW_YORK = ZoneInfo("America/New_York")


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


def ask(calendar: str, scheduled: str, now: str | None = None, max_age_h: float = 4) -> str | None:
    return due(calendar, at(now or scheduled), at(scheduled), max_age_h=max_age_h)


def test_a_run_after_a_session_is_due() -> None:
    assert ask("XNYS", "2026-11-25 01:00") is None
    assert ask("XNYS", "2026-11-28 01:00") is None  # Friday's session closed early


def test_no_run_after_thanksgiving_or_a_weekend() -> None:
    reason = ask("XNYS", "2026-11-27 01:00")
    assert reason is not None
    assert "no session on Thursday 2026-11-26" in reason
    assert "Thanksgiving" in reason
    assert "no session on Saturday" in str(ask("XNYS", "2026-11-29 01:00"))


def test_crypto_runs_every_day() -> None:
    assert ask(ALWAYS_OPEN, "2026-11-27 01:00") is None
    assert ask(ALWAYS_OPEN, "2026-12-25 01:00") is None


def test_a_session_still_open_is_not_trained_on() -> None:
    # scheduled in Tokyo time while New York still trades the same date
    tokyo = ZoneInfo("Asia/Tokyo")
    scheduled = dt.datetime(2026, 11, 25, 1, tzinfo=tokyo)
    assert "closes at 2026-11-24 21:00 UTC" in str(due("XNYS", scheduled, scheduled, max_age_h=4))


def test_a_late_start_is_stale_and_daylight_saving_adds_no_hour() -> None:
    assert ask(ALWAYS_OPEN, "2026-11-25 01:00", now="2026-11-25 04:59") is None
    assert "stale: due at 2026-11-25 01:00 EST, 4.1 h ago" in str(
        ask(ALWAYS_OPEN, "2026-11-25 01:00", now="2026-11-25 05:05")
    )
    # 01:00 EDT, clocks go back at 02:00: five hours on the clock are six
    utc = dt.UTC
    scheduled = dt.datetime(2026, 11, 1, 5, tzinfo=utc).astimezone(NEW_YORK)
    now = dt.datetime(2026, 11, 1, 11, tzinfo=utc)
    assert "6.0 h ago" in str(due(ALWAYS_OPEN, now, scheduled, max_age_h=5))


def test_unknown_calendars_and_times_without_zone_are_refused() -> None:
    assert known("XNYS")
    assert known(ALWAYS_OPEN)
    assert not known("XNIX")
    with pytest.raises(ConfigError, match="no trading calendar named 'XNIX'"):
        ask("XNIX", "2026-11-25 01:00")
    with pytest.raises(ConfigError, match="does not cover 1990-01-01"):
        ask("XNYS", "1990-01-02 01:00")
    with pytest.raises(ConfigError, match="now has no time zone"):
        due(ALWAYS_OPEN, dt.datetime(2026, 1, 1), at("2026-01-01 01:00"), max_age_h=1)


def test_silences_are_the_lunch_break_of_the_session_in_utc() -> None:
    assert silences("XTKS", dt.date(2024, 1, 10)) == (
        (
            dt.datetime(2024, 1, 10, 2, 30, tzinfo=dt.UTC),
            dt.datetime(2024, 1, 10, 3, 30, tzinfo=dt.UTC),
        ),
    )


@pytest.mark.parametrize(
    ("calendar", "date"),
    [
        ("XNYS", dt.date(2024, 1, 10)),  # no break
        ("XTKS", dt.date(2024, 1, 13)),  # a Saturday
        ("XTKS", dt.date(1980, 1, 10)),  # before the calendar begins
        (ALWAYS_OPEN, dt.date(2024, 1, 10)),
    ],
)
def test_no_silences_without_a_break_or_a_session(calendar: str, date: dt.date) -> None:
    assert silences(calendar, date) == ()


def test_early_close_is_the_closing_time_of_a_short_session_only() -> None:
    closes = dt.datetime(2024, 11, 29, 18, tzinfo=dt.UTC)
    assert early_close("XNYS", dt.date(2024, 11, 29)) == closes
    assert early_close("XNYS", dt.date(2024, 11, 27)) is None
    assert early_close("XNYS", dt.date(2024, 11, 28)) is None  # Thanksgiving
    assert early_close("XNYS", dt.date(1980, 1, 10)) is None
    assert early_close(ALWAYS_OPEN, dt.date(2024, 11, 29)) is None


def test_silences_and_early_close_of_an_unknown_calendar_are_refused() -> None:
    for function in (silences, early_close):
        with pytest.raises(ConfigError, match="no trading calendar named 'XNIX'"):
            function("XNIX", dt.date(2024, 1, 10))
