"""The whole chain on real servers: night, promotion, second night, promotion, rollback.

Nothing is fabricated in between. A real nightly registers and stages the candidate, its own event
starts the promotion's deployment, a real worker runs it, a reviewer approves, a real Triton server
is swapped, and the next night, of other features, measures what that server serves.
"""

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun

from flows.nightly import nightly
from flows.runs import promotions
from flows.runs.outcome import Outcome
from model_code.repository.audit import AuditLog
from model_code.repository.manifest import Manifest
from model_code.repository.requests import REPLAY_FILE, Replay
from model_code.serving.client import TritonClient
from model_code.settings import (
    CHAMPION_ROW,
    MODEL_NAME,
    FeatureSpec,
    PromotionSpec,
    Settings,
    TrainingSpec,
)
from tasks.promotion.promotion_runs import runs_of
from tasks.runs.aliases import Aliases
from tests.support.commands import ROOT, make_pool, prefect
from tests.support.desk import EXCEPTION
from tests.support.flow import EASY, tiny
from tests.support.market import SYMBOLS, hive
from tests.support.policy import write_policy

PATIENCE_S = 180.0
PAIRED = FeatureSpec(feature_set="paired", leaders={SYMBOLS[1]: (SYMBOLS[0],)})
SOLO = FeatureSpec(feature_set="solo")
# the tiny networks of the two nights may disagree often, and a busy machine is slow
LENIENT = PromotionSpec(
    load_requests=40,
    shadow_requests=40,
    canary_requests=60,
    canary_patience=2,
    canary_step_s=0.1,
    max_p50_ratio=1000.0,
    max_p99_ms=None,
    max_disagreement=1.0,
    max_positive_disagreement=1.0,
)


@contextmanager
def worker(log: Path) -> Iterator[None]:
    """`tickline worker` in a process of its own."""
    quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_PREFETCH_SECONDS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "worker"],
            cwd=ROOT,
            env={**os.environ, **quick},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def _own_deployment(desk: Settings) -> Iterator[None]:
    """Delete the deployment afterwards: other tests of this server want its parameters plain."""
    yield
    with get_client(sync_client=True) as client:
        client.delete_deployment(client.read_deployment_by_name(promotions.DEPLOYMENT).id)


def night(market: str, goals: Path, learning_rate: float, features: FeatureSpec) -> Outcome:
    training = TrainingSpec(epochs=2, batch_size=32, learning_rate=learning_rate)
    outcome = nightly(tiny(market, goals=str(goals), training=training, features=features))
    assert isinstance(outcome, Outcome)
    return outcome


def promotion(version: int, state: str, log: Path, since: dt.datetime) -> FlowRun:
    """The version's promotion, once it is in that state; older ones are of other tests."""
    deadline = time.monotonic() + PATIENCE_S
    found: FlowRun | None = None
    while time.monotonic() < deadline:
        started = (run for run in runs_of(version) if run.created and run.created >= since)
        found = next(started, None)
        if found is not None and found.state is not None:
            if found.state.name == state:
                return found
            ended = found.state.is_final()
            assert not ended, f"{found.state.name}: {found.state.message}\n{log.read_text()}"
        time.sleep(0.5)
    raise AssertionError(f"promotion of {version} is {found and found.state}\n{log.read_text()}")


def approve(
    desk: Settings, version: int, log: Path, since: dt.datetime, started_by: str = "nightly"
) -> None:
    waiting = promotion(version, "Suspended", log, since)
    assert waiting.parameters["started_by"] == started_by
    assert waiting.deployment_id is not None
    why = "the table is sound"
    assert promotions.decide(desk, str(version), "approve", "ada", why, **EXCEPTION) is None
    promotion(version, "Completed", log, since)


def serves(desk: Settings, outcome: Outcome) -> None:
    """The served version answers this night's recorded requests as its benchmark did."""
    assert outcome.staged is not None
    assert desk.triton_url is not None
    version = int(outcome.staged.version)
    assert Aliases(desk).aliases()[0] == version
    replay = Replay.load(Path(outcome.staged.path) / REPLAY_FILE)
    with TritonClient(desk.triton_url) as client:
        logits_BC = client.predict(replay.x_RTF[:32], model=MODEL_NAME, version=version)
    odds = np.exp(logits_BC[:, 1].astype(np.float64) - logits_BC[:, 0])
    np.testing.assert_allclose(odds / (1 + odds), replay.probability_R[:32], atol=1e-5)


@pytest.mark.usefixtures("_own_deployment")
def test_night_promotion_night_against_what_serves_promotion_rollback(
    desk: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.prefect_api_url
    began = dt.datetime.now(dt.UTC)
    monkeypatch.setenv("PREFECT_API_URL", desk.prefect_api_url)
    monkeypatch.setattr(promotions, "_worker_online", lambda: True)  # it is: below
    market, goals, log = hive(tmp_path / "market"), tmp_path / "goals.yaml", tmp_path / "worker.log"
    goals.write_text(EASY)
    limits = LENIENT.model_dump(mode="json", exclude_unset=True)
    write_policy(desk, limits=limits, loosest={"not_comparable": "with a reason"})
    make_pool()
    parameters = json.dumps({"spec": LENIENT.model_dump(mode="json")})
    prefect("deploy", "--name", "promote", "--params", parameters)

    with worker(log):
        first = night(market, goals, 1e-6, PAIRED)  # hardly learns
        assert first.verdict.verdict == "no baseline"
        assert first.registered is not None
        assert first.registered.version == "1"
        approve(desk, 1, log, began)  # nobody but the night's own event has started it
        serves(desk, first)

        second = night(market, goals, 2e-3, SOLO)
        champion = second.benchmark.row(CHAMPION_ROW)
        assert champion is not None
        assert champion.facts.version == 1
        assert champion.facts.note == f"version 1, {first.engine}"  # the engine, not its graph
        before = first.benchmark.row(first.engine)
        assert before is not None
        assert champion.quality.auc == pytest.approx(before.quality.auc, abs=1e-6)
        assert second.verdict.verdict == "not comparable"  # of another feature set
        compared = next(row for row in second.verdict.rows if row.kind == "min-improvement")
        assert compared.reference == pytest.approx(before.quality.auc, abs=1e-6)
        assert compared.passed is True
        assert second.staged is not None
        recorded = Replay.load(Path(second.staged.path) / REPLAY_FILE)
        assert first.staged is not None
        seen_by_first = Replay.load(Path(first.staged.path) / REPLAY_FILE).x_RTF
        assert recorded.champion_version == 1
        assert recorded.champion_x_RTF is not None
        np.testing.assert_array_equal(recorded.champion_x_RTF, seen_by_first)
        excused = LENIENT.model_copy(update={"not_comparable": "the other set is cheaper"})
        promotions.start(desk, 2, "bob", excused)  # nobody else does
        approve(desk, 2, log, began, started_by="bob")
        serves(desk, second)
        assert Aliases(desk).aliases() == (2, 1)

    manifest = Manifest.load(Path(second.staged.path))
    assert manifest.seen.feature_set == "solo"
    assert Manifest.load(Path(first.staged.path)).seen.leaders == {SYMBOLS[1]: (SYMBOLS[0],)}
    with get_client(sync_client=True) as client:
        names = {str(run.id): run.name for run in client.read_flow_runs()}
    assert names[manifest.flow_run_id] == second.flow_run_name
    reasons = [record.facts.get("not_comparable") for record in AuditLog(desk.audit_file).read()]
    assert [reason for reason in reasons if reason] == ["the other set is cheaper"]
    done = promotions.roll_back(desk, None, "bob", "drill")
    assert (done.version, done.from_version) == (1, 2)
    serves(desk, first)
    events = [
        (record.event, record.facts["version"]) for record in AuditLog(desk.audit_file).read()
    ]
    assert events == [
        ("started", 1), ("approved", 1), ("promoted", 1),
        ("started", 2), ("approved", 2), ("promoted", 2),
        ("rolled back", 1),
    ]  # fmt: skip
