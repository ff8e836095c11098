"""The last nightly runs as plain records, for the dashboard and the metrics."""

import datetime as dt
import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from model_code.market.calendar import due
from model_code.repository.exceptions import ApprovedException

FINISHED = "FINISHED"
CANCELLED = "CANCELLED"
RUNNING = "RUNNING"
NO_NIGHT = "none"
# why a night was not finished by its deadline, by the newest one's status
MISSED = {RUNNING: "running", CANCELLED: "cancelled", "FAILED": "failed", "KILLED": "failed"}
REASONS = (NO_NIGHT, *dict.fromkeys(MISSED.values()))
BAD_STATES = ("Failed", "Crashed", "TimedOut", "Cancelled")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StageTime(_Frozen):
    """One stage of one nightly run.

    Attributes:
        seconds: summed over the stage's task runs.
        state: their worst state: one of `BAD_STATES`, else Completed, else Cached.
    """

    name: str
    state: str
    seconds: float


class Night(_Frozen):
    """One nightly run, from its parent run in MLflow and its flow run in Prefect.

    Attributes:
        status: MLflow's: RUNNING, FINISHED, FAILED or KILLED; CANCELLED if a person stopped it.
        seconds: from the first start to the last end, including pauses before a rerun; None while
            it runs.
        verdict: the gate's verdict; None if the run did not reach the gate.
        test_date: the day the model is judged on; None if the run did not get so far.
        mlflow_url, prefect_url: its page; empty if unknown.
        metrics: of the parent run by plain name, e.g. `auc`, `p99_ms`, `rows`; non-finite values
            are omitted.
        stages: empty if Prefect does not respond or no longer has the run.
    """

    name: str
    mlflow_run_id: str
    flow_run_id: str
    status: str
    started: dt.datetime
    seconds: float | None
    simulated: bool
    test_date: dt.date | None = None
    mlflow_url: str = ""
    prefect_url: str = ""
    verdict: str | None = None
    engine: str | None = None
    error: str | None = None
    metrics: dict[str, float] = {}
    stages: tuple[StageTime, ...] = ()

    @property
    def ended(self) -> dt.datetime | None:
        """When it ended; None while it runs."""
        return None if self.seconds is None else self.started + dt.timedelta(seconds=self.seconds)


class Due(_Frozen):
    """The newest scheduled night whose deadline has passed.

    Attributes:
        start: when the schedule wanted it to start.
        deadline: by when it had to be finished.
    """

    start: dt.datetime
    deadline: dt.datetime


class NextNight(_Frozen):
    """The next start of the schedule that is followed by a night.

    Attributes:
        start: in the schedule's time zone.
        paused: the deployment or its schedule is switched off, so nothing starts.
    """

    start: dt.datetime
    paused: bool


class Serving(_Frozen):
    """The champion: its registered version and when that was approved.

    After a rollback this is the older approval: the age is the model's, not the last swap's.
    """

    version: str
    since: dt.datetime


class History(_Frozen):
    """Everything the metrics and the dashboard show.

    Attributes:
        nights: newest first.
        champion: None before the first promotion.
        sources: whether each store responded, by name; the audit file: whether it is intact.
        exception: of the serving version's approval; None if it has none.
        problem: what contradicts the champion, with its cure; empty if nothing does.
        due: None if no nightly is scheduled, or none was due yet.
        upcoming: None if no nightly is scheduled.
    """

    nights: tuple[Night, ...]
    champion: Serving | None
    sources: dict[str, bool]
    exception: ApprovedException | None = None
    problem: str = ""
    due: Due | None = None
    upcoming: NextNight | None = None

    def newest(self, status: str | None = None) -> Night | None:
        """The newest nightly run, or the newest with this status."""
        return next((night for night in self.nights if status in {None, night.status}), None)

    def missed(self) -> str | None:
        """Why no night was finished by the newest deadline: one of `MISSED`; None if one was."""
        if self.due is None:
            return None
        since = [night for night in self.nights if night.started >= self.due.start]
        if any(night.status == FINISHED for night in since):
            return None
        return MISSED.get(since[0].status, "failed") if since else NO_NIGHT


def newest_due(
    starts: Sequence[dt.datetime], within: dt.timedelta, calendar: str, now: dt.datetime
) -> Due | None:
    """The newest night whose deadline has passed; None if there is none.

    Args:
        starts: of the schedule, in the desk's time zone.
        within: from a start to its deadline, in wall-clock time.
        calendar: a start after a day without a session is no night.
        now: with a time zone.

    Raises:
        ConfigError: the calendar is unknown or does not cover a start.
    """
    for start in sorted(starts, reverse=True):
        # in wall-clock time: a change to daylight saving time does not move the deadline
        deadline = (start.replace(tzinfo=None) + within).replace(tzinfo=start.tzinfo)
        if deadline <= now and _has_night(start, calendar):
            return Due(start=start, deadline=deadline)
    return None


def first_night(starts: Sequence[dt.datetime], calendar: str) -> dt.datetime | None:
    """The earliest start that is followed by a night; None if there is none.

    Args:
        starts: of the schedule, in the desk's time zone.
        calendar: a start after a day without a session is no night.

    Raises:
        ConfigError: the calendar is unknown or does not cover a start.
    """
    return next((start for start in sorted(starts) if _has_night(start, calendar)), None)


def _has_night(start: dt.datetime, calendar: str) -> bool:
    return due(calendar, start, start, max_age_h=math.inf) is None
