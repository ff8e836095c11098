"""Decide whether a scheduled nightly is due."""

import datetime as dt
from zoneinfo import ZoneInfo

from prefect import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.context import FlowRunContext

from model_code.market.calendar import due
from model_code.settings import NightlySpec


def reason_to_skip(spec: NightlySpec, now: dt.datetime | None = None) -> str | None:
    """Return why the current flow run should be skipped; None if it should run.

    Only the first attempt of a scheduled run can be skipped. A run started or rerun by hand always
    runs.

    Args:
        spec: has the calendar and the maximum delay.
        now: with a time zone; None for the current time.

    Raises:
        ConfigError: the calendar is unknown.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or not run.auto_scheduled or run.run_count > 1 or run.deployment_id is None:
        return None
    if run.expected_start_time is None:
        return None
    with get_client(sync_client=True) as client:
        schedules = client.read_deployment(run.deployment_id).schedules
    zones = [
        item.schedule.timezone for item in schedules if isinstance(item.schedule, CronSchedule)
    ]
    desk = ZoneInfo(next((zone for zone in zones if zone), "UTC"))
    scheduled = run.expected_start_time.astimezone(desk)
    return due(spec.calendar, now or dt.datetime.now(dt.UTC), scheduled, max_age_h=spec.max_age_h)
