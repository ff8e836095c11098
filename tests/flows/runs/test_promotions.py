"""Which promotion is resumed."""

import datetime as dt
import uuid
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Failed, Scheduled

from flows.runs import promotions
from model_code.repository.audit import AuditLog
from model_code.settings import Settings

NOW = dt.datetime.now(dt.UTC)


def test_a_newer_run_of_another_home_does_not_hide_one_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may hold runs of several homes, and one that an event has just scheduled."""
    settings = Settings(home=tmp_path / "home").resolved()
    foreign = FlowRun(flow_id=uuid.uuid4(), state=Scheduled())
    own = FlowRun(flow_id=uuid.uuid4(), state=Failed(), start_time=NOW)
    runs = [foreign, own]
    monkeypatch.setattr("tasks.promotion.promotion_runs.runs_of", lambda _: runs)
    assert promotions._find_resumable(settings, 1) is None, "nothing was started here"
    audit = AuditLog(settings.audit_file)
    audit.append("started", "started-1", {"version": 1, "flow_run_id": str(own.id)})
    assert promotions._find_resumable(settings, 1) is own
    audit.append(
        "stopped", "stopped-1", {"flow_run_id": str(own.id), "kind": next(iter(promotions.VOID))}
    )
    assert promotions._find_resumable(settings, 1) is None, "its approval is void"
