"""A promotion that a worker begins, that suspends, and that a worker goes on with once decided."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders_promotion import PATIENT, registered
from builders_serving import logits, windows
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows import promotions
from infra.triton.server import TritonServer
from model_code.repository.audit import AuditLog
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME, Settings
from tasks.names import Names
from tasks.opening import open_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def desk(home: Settings, live_triton: TritonServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As the worker's environment has it: reviewers, a live server, the session's Prefect."""
    assert home.prefect_api_url
    values = {
        "PREFECT_API_URL": home.prefect_api_url,
        "TICKLINE_TRITON_URL": live_triton.grpc_url,
        "TICKLINE_SERVING": str(live_triton.repository),
        "TICKLINE_REVIEWERS": "ada, grace",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with get_client(sync_client=True) as client:
        for run in open_runs():
            client.delete_flow_run(run.id)
    return Settings().resolved()


def command(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def work_once(run: FlowRun) -> FlowRun:
    """A worker takes what waits in the pool; the run afterwards."""
    command("flows.cli", "worker", "--once")
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def test_a_worker_suspends_it_and_goes_on_after_the_decision(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(
        "prefect", "--no-prompt", "work-pool", "create", "--overwrite", "-t", "process", "local"
    )
    command("prefect", "--no-prompt", "deploy", "--name", "promote")
    registered(desk, 1)
    parameters = {"version": 1, "started_by": "nightly", "spec": PATIENT.model_dump(mode="json")}
    begun = run_deployment(promotions.DEPLOYMENT, parameters=parameters, timeout=0)

    waiting = work_once(begun)
    assert waiting.state is not None
    assert waiting.state.is_paused()
    assert [record.event for record in AuditLog(desk.audit_file).read()] == ["started"]
    assert Names(desk).aliases() == (None, None)

    monkeypatch.setattr(promotions, "_worker_online", lambda: True)
    assert promotions.decide(desk, "1", "approve", "ada", "the table is sound") is None
    assert Names(desk).aliases() == (None, None)  # nothing moves here: a worker goes on with it

    done = work_once(begun)
    assert done.state is not None
    assert done.state.is_completed(), done.state.message
    assert Names(desk).aliases() == (1, None)
    events = [record.event for record in AuditLog(desk.audit_file).read()]
    assert events == ["started", "approved", "promoted"]
    assert desk.triton_url
    with TritonClient(desk.triton_url) as client:
        found = client.predict(windows(), model=MODEL_NAME, version=1)
    np.testing.assert_allclose(found, logits(1), atol=1e-4)
