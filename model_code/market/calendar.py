"""Trading calendars: whether there is a closed session to train on.

Sessions come from the `exchange_calendars` library. Exchange codes such as "XNYS" have holidays and
early closes. "24/7" has a session on every UTC date.
"""

import datetime as dt
from typing import TYPE_CHECKING

from model_code.errors import ConfigError

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

ALWAYS_OPEN = "24/7"


def due(calendar: str, now: dt.datetime, scheduled: dt.datetime, *, max_age_h: float) -> str | None:
    """Return why a scheduled run should be skipped, or None if it should run.

    The session is the calendar date before `scheduled`, in `scheduled`'s time zone: a run scheduled
    for Friday 01:00 trains on Thursday. That session must exist and be closed.

    Args:
        calendar: a name `exchange_calendars` knows, e.g. "XNYS", "24/7".
        now: with a time zone.
        scheduled: scheduled start, in the desk's time zone.
        max_age_h: a run that starts more than this many hours late is stale.

    Raises:
        ConfigError: the calendar is unknown or does not cover the date, or a time has no time zone.
    """
    for name, moment in (("now", now), ("scheduled", scheduled)):
        if moment.tzinfo is None:
            raise ConfigError(f"{name} has no time zone", where=moment.isoformat())
    late_h = (now - scheduled).total_seconds() / 3600
    if late_h > max_age_h:
        return (
            f"stale: due at {scheduled:%Y-%m-%d %H:%M %Z}, {late_h:.1f} h ago "
            f"(at most {max_age_h:g} h)"
        )
    if calendar == ALWAYS_OPEN:
        return None
    date = scheduled.date() - dt.timedelta(days=1)
    sessions = _calendar(calendar)
    if not _covers(sessions, date):
        raise ConfigError(
            f"calendar {calendar} does not cover {date}",
            where=f"{sessions.first_session.date()} to {sessions.last_session.date()}",
            remedy="update exchange_calendars",
        )
    day = date.isoformat()
    if not sessions.is_session(day):
        return f"no session on {date:%A} {date}{_holiday(sessions, date)} ({calendar})"
    close = sessions.session_close(day)
    if now < close:
        return f"the session of {date} closes at {close:%Y-%m-%d %H:%M} UTC ({calendar})"
    return None


def time_to_deadline(start: dt.datetime, deadline: dt.time) -> dt.timedelta:
    """Wall-clock time from a start to the deadline after it.

    A change to daylight saving time does not shorten it.
    """
    plain = start.replace(tzinfo=None)
    end = dt.datetime.combine(plain.date(), deadline)
    return (end if end > plain else end + dt.timedelta(days=1)) - plain


def silences(calendar: str, date: dt.date) -> tuple[tuple[dt.datetime, dt.datetime], ...]:
    """The breaks inside a session (a lunch break), start and end in UTC; usually none.

    Raises:
        ConfigError: the calendar is unknown.
    """
    import pandas as pd

    if calendar == ALWAYS_OPEN:
        return ()
    sessions = _calendar(calendar)
    day = date.isoformat()
    if not _covers(sessions, date) or not sessions.is_session(day):
        return ()
    start, end = sessions.session_break_start(day), sessions.session_break_end(day)
    if start is pd.NaT or end is pd.NaT:
        return ()
    return ((start.to_pydatetime(), end.to_pydatetime()),)


def early_close(calendar: str, date: dt.date) -> dt.datetime | None:
    """When a session closes in UTC, if that is before the calendar's usual time; else None.

    Raises:
        ConfigError: the calendar is unknown.
    """
    if calendar == ALWAYS_OPEN:
        return None
    sessions = _calendar(calendar)
    if not _covers(sessions, date) or date.isoformat() not in sessions.early_closes.strftime(
        "%Y-%m-%d"
    ):
        return None
    close: dt.datetime = sessions.session_close(date.isoformat()).to_pydatetime()
    return close


def _covers(sessions: "ExchangeCalendar", date: dt.date) -> bool:
    return bool(sessions.first_session.date() <= date <= sessions.last_session.date())


def known(calendar: str) -> bool:
    """Whether `exchange_calendars` has a calendar of this name."""
    if calendar == ALWAYS_OPEN:
        return True
    from exchange_calendars import get_calendar_names

    return calendar in get_calendar_names()


def _calendar(name: str) -> "ExchangeCalendar":
    import exchange_calendars  # takes seconds to import; the default calendar does not need it
    from exchange_calendars.errors import InvalidCalendarName

    try:
        return exchange_calendars.get_calendar(name)
    except InvalidCalendarName as error:
        raise ConfigError(
            f"no trading calendar named {name!r}",
            remedy='use a market\'s code, e.g. "XNYS", "XLON", or "24/7"',
        ) from error


def _holiday(sessions: "ExchangeCalendar", date: dt.date) -> str:
    """The holiday's name, if the calendar's rules give one."""
    import pandas as pd

    rules = sessions.regular_holidays
    if rules is None:
        return ""
    day = pd.Timestamp(date)
    named = rules.holidays(day, day, return_name=True)
    return f", {named.iloc[0]}" if len(named) and named.iloc[0] else ""
