"""A promotion that a worker starts, that suspends, and that a worker resumes once decided."""

import numpy as np
import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun

from flows.runs import promotions
from model_code.repository.audit import AuditLog
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion.aliases import Aliases
from tests.support.commands import make_pool, module, prefect
from tests.support.flow import schedule_run
from tests.support.promotion import PATIENT, registered
from tests.support.serving import logits, windows


def work_once(run: FlowRun) -> FlowRun:
    """Let a worker run what waits in the pool; return the run afterwards."""
    module("flows.cli", "worker", "--once")
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def test_a_worker_suspends_a_promotion_and_resumes_it_after_the_decision(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.prefect_api_url
    monkeypatch.setenv("PREFECT_API_URL", desk.prefect_api_url)
    make_pool()
    prefect("deploy", "--name", "promote")
    registered(desk, 1)
    parameters = {"version": 1, "started_by": "nightly", "spec": PATIENT.model_dump(mode="json")}
    begun = schedule_run(promotions.DEPLOYMENT, parameters)

    waiting = work_once(begun)
    assert waiting.state is not None
    assert waiting.state.is_paused()
    assert [record.event for record in AuditLog(desk.audit_file).read()] == ["started"]
    assert Aliases(desk).aliases() == (None, None)

    monkeypatch.setattr(promotions, "_worker_online", lambda: True)
    assert promotions.decide(desk, "1", "approve", "ada", "the table is sound") is None
    assert Aliases(desk).aliases() == (None, None)  # nothing changes here: a worker resumes it

    done = work_once(begun)
    assert done.state is not None
    assert done.state.is_completed(), done.state.message
    assert Aliases(desk).aliases() == (1, None)
    events = [record.event for record in AuditLog(desk.audit_file).read()]
    assert events == ["started", "approved", "promoted"]
    assert desk.triton_url
    with TritonClient(desk.triton_url) as client:
        found = client.predict(windows(), model=MODEL_NAME, version=1)
    np.testing.assert_allclose(found, logits(1), atol=1e-4)
