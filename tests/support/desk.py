"""What a desk does with promotions, and how it is seen."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.objects import FlowRun

from flows.runs import promotions
from model_code.repository.audit import AuditLog
from model_code.repository.exceptions import Terms
from model_code.repository.serving import ServingRepository
from model_code.serving.candidate import CANDIDATE_NAME
from model_code.serving.client import TritonClient
from model_code.settings import MODEL_NAME, PromotionSpec, Settings
from tasks.promotion.records import Promoted
from tasks.runs.aliases import Aliases
from tests.support.promotion import PATIENT, registered
from tests.support.serving import logits, windows

# the first version has no baseline: an exception
EXCEPTION: Terms = {
    "owner": "grace",
    "expires": f"{dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)}",
}


def start(
    desk: Settings, version: int, by: str = "bob", spec: PromotionSpec = PATIENT, **how: Any
) -> FlowRun:
    registered(desk, version, **how)
    waiting = promotions.start(desk, version, by, spec)
    assert isinstance(waiting, FlowRun)
    assert waiting.state is not None
    assert waiting.state.is_paused()
    return waiting


def approve(desk: Settings, version: int, reviewer: str = "ada") -> Promoted:
    why = "the table is sound"
    outcome = promotions.decide(desk, str(version), "approve", reviewer, why, **EXCEPTION)
    assert isinstance(outcome, Promoted)
    return outcome


def champion(desk: Settings) -> int | None:
    """Who serves, by name, by route and by the server's own answer."""
    version, _ = Aliases(desk).aliases()
    route = ServingRepository(desk.serving_repository).route()
    assert route.candidate is None
    assert version == (route.champion.version if route.champion else None)
    assert desk.triton_url
    with TritonClient(desk.triton_url) as client:
        assert not client.ready(CANDIDATE_NAME)
        if version is not None:
            found = client.predict(windows(), model=MODEL_NAME, version=version)
            np.testing.assert_allclose(found, logits(version), atol=1e-4)
    return version


def events(desk: Settings) -> list[str]:
    return [record.event for record in AuditLog(desk.audit_file).read()]


def evidence(desk: Settings, version: int) -> str:
    mlflow = MlflowClient(desk.tracking_uri)
    night = mlflow.get_model_version(MODEL_NAME, str(version)).run_id
    assert night is not None
    run = mlflow.get_run(night)
    found = mlflow.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{night}'")
    path = mlflow.download_artifacts(found[0].info.run_id, "promotion/evidence.html")
    return Path(path).read_text()


class Killed(BaseException):
    """The process is gone: nothing after this line runs."""


def die(*_: object, **__: object) -> None:
    raise Killed


def answer(run: FlowRun, **fields: str) -> FlowRun | Promoted:
    """Fill in Prefect's form, which knows nothing of allow-lists, and resume the run."""
    with get_client(sync_client=True) as client:
        client.resume_flow_run(run.id, run_input=fields)
        found = client.read_flow_run(run.id)
    return promotions._run_here(found)
