"""Whether a night that the schedule started has anything to do."""

import datetime as dt
from zoneinfo import ZoneInfo

from prefect import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.context import FlowRunContext

from model_code.market.calendar import due
from model_code.settings import NightlySpec


def reason_to_skip(spec: NightlySpec, now: dt.datetime | None = None) -> str | None:
    """Why the present flow run should end at once; None where it should go on.

    Only a run's first attempt is asked, and only if its schedule started it: whoever starts or
    reruns a night by hand means it.

    Args:
        spec: names the calendar and how late a night may begin.
        now: with a time zone; None: the clock's time.

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
