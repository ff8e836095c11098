"""By when a night must be finished, from a real Prefect server, and while that is down."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule

from model_code.monitoring.history import first_night, newest_due
from model_code.settings import Settings
from tasks.monitoring.deadline import NightSchedule, due_night, next_night

ZONE = ZoneInfo("America/New_York")
FOUR_HOURS = dt.timedelta(hours=4)


def at(day: int, hour: int = 1, month: int = 11) -> dt.datetime:
    """A time of 2024 in New York; 28 November is Thanksgiving, a Thursday."""
    return dt.datetime(2024, month, day, hour, tzinfo=ZONE)


def starts(until: dt.datetime) -> list[dt.datetime]:
    return [at(day) for day in range(18, 31) if at(day) <= until]


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        (at(27, 4), at(26)),  # the night of the 27th still has an hour
        (at(27, 5), at(27)),
        (at(28, 12), at(28)),  # it covers Wednesday
        (at(29, 12), at(28)),  # no session on Thanksgiving: nothing was due on Friday
        (at(30, 12), at(30)),  # it covers Friday
    ],
)
def test_no_session_no_deadline(now: dt.datetime, wanted: dt.datetime) -> None:
    found = newest_due(starts(now), FOUR_HOURS, "XNYS", now)
    assert found is not None
    assert found.start == wanted
    assert found.deadline == wanted.replace(hour=5)


@pytest.mark.parametrize(
    ("calendar", "wanted"),
    [("XNYS", at(30)), ("24/7", at(29))],  # Friday's start has no session before it
)
def test_the_next_night_follows_a_session(calendar: str, wanted: dt.datetime) -> None:
    assert first_night([at(30), at(29)], calendar) == wanted
    assert first_night([], calendar) is None


def test_every_day_counts_where_the_market_never_closes() -> None:
    found = newest_due(starts(at(29, 12)), FOUR_HOURS, "24/7", at(29, 12))
    assert found is not None
    assert found.start == at(29)
    assert newest_due([], FOUR_HOURS, "24/7", at(29)) is None


def test_the_deadline_is_wall_clock_time_when_the_clocks_change() -> None:
    found = newest_due([at(3)], FOUR_HOURS, "24/7", at(3, 12))  # 3 November 2024, back an hour
    assert found is not None
    assert found.deadline == at(3, 5)


@pytest.fixture
def deployed(home: Settings) -> Iterator[Settings]:
    """The nightly of a desk in New York, deployed and paused, a month ago as it were."""
    with get_client(sync_client=True) as client:
        cron = CronSchedule(cron="0 1 * * *", timezone="America/New_York")
        deployment = client.create_deployment(
            client.create_flow_from_name("nightly"),
            "nightly",
            parameters={"spec": {"calendar": "24/7"}},
            schedules=[DeploymentScheduleCreate(schedule=cron, active=False)],
            paused=True,
        )
        yield home
        client.delete_deployment(deployment)


def remembered(settings: Settings) -> Path:
    return settings.home / "nightly-schedule.json"


def test_a_paused_schedule_has_deadlines_also_while_its_server_is_down(
    deployed: Settings, prefect_url: str
) -> None:
    now = dt.datetime.now(dt.UTC)
    assert due_night(deployed, prefect_url, now) is None  # deployed just now: nothing was due
    later = now + dt.timedelta(days=3)
    found = due_night(deployed, prefect_url, later)
    assert found is not None
    assert found.start.astimezone(ZONE).hour == 1
    assert found.deadline.astimezone(ZONE).hour == 5
    assert later - dt.timedelta(days=1) <= found.deadline <= later
    assert due_night(deployed, None, later) == found
    early = deployed.resolved(deadline=dt.time(3, 30))
    wanted = due_night(early, prefect_url, later)
    assert wanted is not None
    assert (wanted.deadline.hour, wanted.deadline.minute) == (3, 30)


def test_the_next_night_is_known_and_whether_it_is_paused(
    deployed: Settings, prefect_url: str
) -> None:
    now = dt.datetime.now(dt.UTC)
    found = next_night(deployed, prefect_url, now)
    assert found is not None
    assert found.paused
    assert found.start.astimezone(ZONE).hour == 1
    assert now < found.start < now + dt.timedelta(hours=26)
    assert next_night(deployed, None, now) == found
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("nightly/nightly")
        client.resume_deployment(deployment.id)
        for item in deployment.schedules:
            client.update_deployment_schedule(deployment.id, item.id, active=True)
    running = next_night(deployed, prefect_url, now)
    assert running is not None
    assert (running.start, running.paused) == (found.start, False)


def test_without_a_deployment_nothing_is_due(home: Settings, prefect_url: str) -> None:
    schedule = NightSchedule(
        cron="0 1 * * *", timezone="UTC", calendar="no such one", since=at(1, month=1)
    )
    remembered(home).write_text(schedule.model_dump_json())
    known = due_night(home, None, at(29, 12))
    assert known is not None  # an unknown calendar raises the alarm instead of hiding it
    upcoming = next_night(home, None, at(29, 12))
    assert upcoming is not None
    assert upcoming.start == dt.datetime(2024, 11, 30, 1, tzinfo=dt.UTC)
    assert due_night(home, prefect_url, at(29, 12)) is None
    assert next_night(home, prefect_url, at(29, 12)) is None
    assert not remembered(home).exists()
    assert due_night(home, None, at(29, 12)) is None
