"""Fixtures of the flows."""

import pytest
from prefect import get_client

from flows.runs import promotions
from infra.triton.server import TritonServer
from model_code.settings import Settings
from tasks.promotion.promotion_runs import open_runs
from tests.support.policy import write_policy


@pytest.fixture
def desk(home: Settings, live_triton: TritonServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a desk with two reviewers, a live server and the session's Prefect."""
    values = {
        "TICKLINE_TRITON_URL": live_triton.grpc_url,
        "TICKLINE_TRITON_KEY": live_triton.key,
        "TICKLINE_SERVING": str(live_triton.repository),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(promotions, "_worker_online", lambda: False)  # another test's may linger
    with get_client(sync_client=True) as client:
        for run in open_runs():
            client.delete_flow_run(run.id)
    settings = Settings().resolved()
    write_policy(settings)
    return settings
