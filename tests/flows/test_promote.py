"""Promotions from evidence to serving, through a real Prefect server and a real Triton."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders_promotion import PATIENT, registered
from builders_serving import logits, windows
from mlflow.tracking import MlflowClient

from flows import promotions
from infra.triton.server import TritonServer
from model_code.errors import ConfigError, PromotionError
from model_code.repository.audit import AuditLog
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME, Settings
from tasks.names import Names
from tasks.promotion_results import Promoted


@pytest.fixture
def desk(
    home: Settings, live_triton: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings of a desk with two reviewers, a live server and the session's Prefect."""
    values = {
        "TICKLINE_TRITON_URL": live_triton.grpc_url,
        "TICKLINE_SERVING": str(live_triton.repository),
        "TICKLINE_REVIEWERS": "ada,grace",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Settings().resolved()


def approve(desk: Settings, version: int, reviewer: str = "ada") -> Promoted:
    outcome = promotions.decide(desk, str(version), "approve", reviewer, "the table is sound")
    assert isinstance(outcome, Promoted)
    return outcome


def promoted(desk: Settings, version: int) -> Promoted:
    registered(desk, version)
    waiting = promotions.start(desk, version, "bob", PATIENT)
    assert waiting.state is not None
    assert waiting.state.is_paused()
    return approve(desk, version)


def answers(desk: Settings, version: int) -> None:
    """The server answers as the version must."""
    assert desk.triton_url
    with TritonClient(desk.triton_url) as client:
        found = client.predict(windows(), version=version)
    np.testing.assert_allclose(found, logits(version), atol=1e-4)


def events(desk: Settings) -> list[str]:
    return [record.event for record in AuditLog(desk.audit_file).read()]


def test_first_promotion_then_second_then_rollback(desk: Settings) -> None:
    first = promoted(desk, 1)
    assert (first.outcome, first.champion, first.previous) == ("promoted", 1, None)
    assert first.shadow is not None
    assert first.canary is not None
    assert "no baseline" in str(first.shadow.skipped)
    assert "no baseline" in str(first.canary.skipped)
    answers(desk, 1)
    page = evidence(desk, 1)
    assert "No baseline." in page
    assert "data:image/png" not in page  # this night drew nothing

    second = promoted(desk, 2)
    assert (second.outcome, second.champion, second.previous) == ("promoted", 2, 1)
    assert second.canary is not None
    assert [step.errors for step in second.canary.steps] == [0, 0, 0]
    assert second.canary.steps[0].requests < second.canary.steps[1].requests
    assert second.canary.steps[2].requests == PATIENT.canary_requests
    assert second.validated is not None
    assert [loaded.concurrency for loaded in second.validated.loads] == [1, 8, 32]
    answers(desk, 2)
    assert Names(desk).tags(2)["approved_by"] == "ada"
    assert Names(desk).tags(2)["triton_version"].startswith("triton 2.")
    assert Names(desk).tags(2)["audit_sha256"] == AuditLog(desk.audit_file).read()[-1].sha256

    back = promotions.roll_back(desk, None, "bob", "it misbehaved")
    assert (back.version, back.from_version, back.previous) == (1, 2, None)
    answers(desk, 1)
    assert Names(desk).aliases() == (1, None)
    assert events(desk) == [
        "started", "approved", "promoted", "started", "approved", "promoted", "rolled back",
    ]  # fmt: skip


def evidence(desk: Settings, version: int) -> str:
    mlflow = MlflowClient(desk.tracking_uri)
    night = mlflow.get_model_version(MODEL_NAME, str(version)).run_id
    run = mlflow.get_run(night)
    found = mlflow.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{night}'"
    )
    path = mlflow.download_artifacts(found[0].info.run_id, "promotion/evidence.html")
    return Path(path).read_text()
