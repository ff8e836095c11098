"""By when a night must be finished: from the deployed schedule, also while its server is down."""

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
from model_code.monitoring.history import Due, newest_due
from model_code.settings import Settings

DEPLOYMENT = "nightly/nightly"
LOOK_BACK = dt.timedelta(days=21)  # longer than any market's holidays


class NightSchedule(BaseModel):
    """When the deployed nightly starts.

    Attributes:
        cron: in `timezone`.
        calendar: trading calendar of its specification.
        since: when it was deployed first; no night was due before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cron: str
    timezone: str
    calendar: str
    since: dt.datetime


def due_night(settings: Settings, url: str | None, now: dt.datetime) -> Due | None:
    """The newest scheduled night whose deadline has passed; None if none is scheduled here.

    A paused schedule counts: that no night runs is what this must notice.

    Args:
        settings: of the home, and the deadline.
        url: API of Prefect's server; None if it does not answer: the schedule is the last known.
        now: with a time zone.
    """
    schedule = _deployed(settings, url) if url else _remembered(settings)
    if schedule is None:
        return None
    zone = ZoneInfo(schedule.timezone)
    starts = _starts(schedule, zone, now)
    if not starts:
        return None
    within = time_to_deadline(starts[-1], settings.deadline)
    try:
        return newest_due(starts, within, schedule.calendar, now)
    except ConfigError:  # the nightly itself names the unknown calendar, and does not run
        return newest_due(starts, within, ALWAYS_OPEN, now)


def _starts(schedule: NightSchedule, zone: ZoneInfo, now: dt.datetime) -> list[dt.datetime]:
    from prefect.server.schemas.schedules import CronSchedule

    known = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    begin = max(now - LOOK_BACK, schedule.since)
    found = asyncio.run(known.get_dates(start=begin, end=now))
    # plain datetimes: the library's own type changes its zone in arithmetic
    return [dt.datetime.fromtimestamp(start.timestamp(), zone) for start in found]


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
    crons = [item.schedule for item in found.schedules if isinstance(item.schedule, CronSchedule)]
    if not crons or found.created is None:
        return None
    spec = found.parameters.get("spec") or {}
    schedule = NightSchedule(
        cron=crons[0].cron,
        timezone=crons[0].timezone or "UTC",
        calendar=spec.get("calendar") or ALWAYS_OPEN,
        since=found.created,
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
