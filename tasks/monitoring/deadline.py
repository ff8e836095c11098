"""When nights are due and which is next: the deployed schedule, also while its server is down."""

import asyncio
import datetime as dt
from contextlib import suppress
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from infra.servers import environment
from model_code.artifacts import atomic_file
from model_code.errors import ConfigError, StorageError
from model_code.market.calendar import ALWAYS_OPEN, time_to_deadline
from model_code.monitoring.history import Due, NextNight, first_night, newest_due
from model_code.settings import Settings

DEPLOYMENT = "nightly/nightly"
REACH = dt.timedelta(days=21)  # longer than any market's holidays


class NightSchedule(BaseModel):
    """When the deployed nightly starts.

    Attributes:
        cron: in `timezone`.
        calendar: trading calendar of its specification.
        since: when it was deployed first; no night was due before.
        paused: the deployment or its schedule is switched off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str
    timezone: str
    calendar: str
    since: dt.datetime
    paused: bool = False


def due_night(settings: Settings, url: str | None, now: dt.datetime) -> Due | None:
    """The newest scheduled night whose deadline has passed; None if none is scheduled here.

    A paused schedule counts: that no night runs is what this must notice.

    Args:
        settings: of the home, and the deadline.
        url: API of Prefect's server; None if it does not answer: the schedule is the last known.
        now: with a time zone.
    """
    schedule = _schedule(settings, url)
    if schedule is None:
        return None
    starts = _starts(schedule, max(now - REACH, schedule.since), now)
    if not starts:
        return None
    within = time_to_deadline(starts[-1], settings.deadline)
    try:
        return newest_due(starts, within, schedule.calendar, now)
    except ConfigError:  # the nightly itself names the unknown calendar, and does not run
        return newest_due(starts, within, ALWAYS_OPEN, now)


def next_night(settings: Settings, url: str | None, now: dt.datetime) -> NextNight | None:
    """The next scheduled start; None if none is scheduled here.

    Args:
        settings: of the home.
        url: API of Prefect's server; None if it does not answer: the schedule is the last known.
        now: with a time zone.
    """
    schedule = _schedule(settings, url)
    if schedule is None:
        return None
    starts = _starts(schedule, now, now + REACH)
    try:
        start = first_night(starts, schedule.calendar)
    except ConfigError:  # the nightly itself names the unknown calendar, and does not run
        start = first_night(starts, ALWAYS_OPEN)
    return None if start is None else NextNight(start=start, paused=schedule.paused)


def _schedule(settings: Settings, url: str | None) -> NightSchedule | None:
    return _deployed(settings, url) if url else _remembered(settings)


def _starts(schedule: NightSchedule, begin: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    from prefect.server.schemas.schedules import CronSchedule

    known, zone = CronSchedule(cron=schedule.cron, timezone=schedule.timezone), schedule.timezone
    found = asyncio.run(known.get_dates(start=begin, end=end))
    # plain datetimes: the library's own type changes its zone in arithmetic
    return [dt.datetime.fromtimestamp(start.timestamp(), ZoneInfo(zone)) for start in found]


def _deployed(settings: Settings, url: str) -> NightSchedule | None:
    """Read the schedule from Prefect's server and remember it; None if none is deployed."""
    from prefect import get_client
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    auth = environment(settings).get("PREFECT_API_AUTH_STRING")
    changes = {PREFECT_API_URL: url} | ({PREFECT_API_AUTH_STRING: auth} if auth else {})
    with temporary_settings(changes), get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            _path(settings).unlink(missing_ok=True)
            return None
        except (httpx.HTTPError, PrefectHTTPStatusError):  # it went away just now
            return _remembered(settings)
    crons = [
        (item.schedule, item.active)
        for item in found.schedules
        if isinstance(item.schedule, CronSchedule)
    ]
    if not crons or found.created is None:
        return None
    cron, active = crons[0]
    spec = found.parameters.get("spec") or {}
    schedule = NightSchedule(
        cron=cron.cron,
        timezone=cron.timezone or "UTC",
        calendar=spec.get("calendar") or ALWAYS_OPEN,
        since=found.created,
        paused=found.paused or not active,
    )
    if schedule != _remembered(settings):
        with suppress(StorageError), atomic_file(_path(settings)) as temporary:
            temporary.write_text(schedule.model_dump_json())
    return schedule


def _remembered(settings: Settings) -> NightSchedule | None:
    try:
        return NightSchedule.model_validate_json(_path(settings).read_bytes())
    except (OSError, ValidationError):
        return None


def _path(settings: Settings) -> Path:
    return settings.home / "nightly-schedule.json"
