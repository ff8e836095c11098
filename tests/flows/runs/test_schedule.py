"""Only scheduled nightlies can be skipped."""

import datetime as dt
from types import SimpleNamespace

import pytest
from prefect.client.schemas.schedules import CronSchedule

from flows.runs import schedule
from flows.runs.schedule import reason_to_skip
from model_code.settings import NightlySpec

XNYS = NightlySpec(calendar="XNYS")
# Thanksgiving 2024 is Thursday 28 November: Friday's run at 01:00 in New York has no session
FRIDAY = dt.datetime(2024, 11, 29, 6, 0, tzinfo=dt.UTC)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A flow run as in the engine's context, started by the schedule at FRIDAY."""
    run = SimpleNamespace(
        auto_scheduled=True, run_count=1, deployment_id="d", expected_start_time=FRIDAY
    )
    cron = CronSchedule(cron="0 1 * * *", timezone="America/New_York")
    deployment = SimpleNamespace(schedules=[SimpleNamespace(schedule=cron)])

    class Client:
        def __enter__(self) -> "Client":
            return self

        def __exit__(self, *_: object) -> None: ...

        def read_deployment(self, _: str) -> SimpleNamespace:
            return deployment

    context = SimpleNamespace(get=lambda: SimpleNamespace(flow_run=run))
    monkeypatch.setattr(schedule, "FlowRunContext", context)
    monkeypatch.setattr(schedule, "get_client", lambda **_: Client())
    return run


def test_runs_after_a_holiday_and_late_runs_are_skipped(started: SimpleNamespace) -> None:
    soon = FRIDAY + dt.timedelta(minutes=1)
    assert "no session on Thursday 2024-11-28" in (reason_to_skip(XNYS, soon) or "")
    assert reason_to_skip(NightlySpec(), soon) is None
    assert "stale" in (reason_to_skip(NightlySpec(), FRIDAY + dt.timedelta(hours=5)) or "")


@pytest.mark.parametrize("change", [{"auto_scheduled": False}, {"run_count": 2}])
def test_manual_runs_and_reruns_are_never_skipped(
    started: SimpleNamespace, change: dict[str, object]
) -> None:
    vars(started).update(change)
    assert reason_to_skip(XNYS, FRIDAY + dt.timedelta(days=3)) is None
