"""Which promotion is resumed."""

import datetime as dt
import uuid
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed, Failed, Scheduled

from flows.runs import promotions
from model_code.repository.audit import AuditLog
from model_code.settings import Settings
from tests.support.policy import write_policy

NOW = dt.datetime.now(dt.UTC)


def test_a_newer_run_of_another_home_does_not_hide_one_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may hold runs of several homes, and one that an event has just scheduled."""
    settings = Settings(home=tmp_path / "home").resolved()
    policy = write_policy(settings)
    foreign = FlowRun(flow_id=uuid.uuid4(), state=Scheduled())
    own = FlowRun(flow_id=uuid.uuid4(), state=Crashed(), start_time=NOW, run_count=2)
    runs = [foreign, own]
    monkeypatch.setattr("tasks.promotion.promotion_runs.runs_of", lambda _: runs)
    assert promotions._find_resumable(settings, 1, policy) is None, "nothing was started here"
    audit = AuditLog(settings.audit_file)
    facts = {"version": 1, "flow_run_id": str(own.id), "policy_sha256": policy.sha256}
    audit.append("started", "started-1", facts)
    assert promotions._find_resumable(settings, 1, policy) is own
    changed = write_policy(settings, reviewers=["ada"])
    assert promotions._find_resumable(settings, 1, changed) is None, "it needs a new decision"
    own.state = Failed()
    assert promotions._find_resumable(settings, 1, policy) is None, "why it failed is not recorded"
    facts = {"flow_run_id": str(own.id), "kind": "ServingError"}
    audit.append("stopped", "stopped-0", facts | {"attempt": 1})
    assert promotions._find_resumable(settings, 1, policy) is None, "that was the first attempt"
    audit.append("stopped", "stopped-2", facts | {"attempt": 2})
    assert promotions._find_resumable(settings, 1, policy) is own
    audit.append(
        "stopped", "stopped-1", {"flow_run_id": str(own.id), "kind": next(iter(promotions.VOID))}
    )
    assert promotions._find_resumable(settings, 1, policy) is None, "its approval is void"
