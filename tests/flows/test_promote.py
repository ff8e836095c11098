"""Promotions from evidence to serving, through a real Prefect server and a real Triton."""

import datetime as dt
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Pending

from flows.promotions_due import promotions_due
from flows.runs import promotions
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import (
    ConfigError,
    EngineUnavailableError,
    PromotionError,
)
from model_code.features.served import ServedFeatures
from model_code.repository.approved import require_approved
from model_code.repository.audit import AuditLog
from model_code.repository.manifest import Manifest
from model_code.repository.policy import PolicyFile
from model_code.repository.serving import RepositoryBusyError, ServingRepository
from model_code.serving.canary import CanaryStoppedError
from model_code.settings import MODEL_NAME, FeatureSpec, Settings
from model_code.storage.serving import follow_serving, restore_serving
from tasks.promotion.promotion_runs import runs_of
from tasks.promotion.records import Promoted
from tasks.runs.aliases import Aliases
from tasks.runs.cleanup import clean_up
from tasks.runs.serving_version import serving_version
from tasks.runs.version_tags import want_promotion
from tests.support.desk import EXCEPTION, answer, approve, champion, events, evidence, start
from tests.support.promotion import PATIENT, registered
from tests.support.serving import weights
from tests.support.sidecar import PLAN


def test_first_promotion_then_second_then_rollback(desk: Settings) -> None:
    start(desk, 1)
    first = approve(desk, 1)
    assert (first.outcome, first.champion, first.previous) == ("promoted", 1, None)
    assert first.shadow is not None
    assert first.canary is not None
    assert "no baseline" in str(first.shadow.skipped)
    assert "no baseline" in str(first.canary.skipped)
    assert champion(desk) == 1
    assert evidence(desk, 1).lower().count("no baseline") == 1
    described = MlflowClient(desk.tracking_uri).get_model_version(MODEL_NAME, "1").description
    assert "/artifacts/promotion/evidence.html?workflowType=machine_learning)" in str(described)

    start(desk, 2)
    mlflow = MlflowClient(desk.tracking_uri)
    night = mlflow.get_model_version(MODEL_NAME, "2").run_id
    assert night is not None
    mlflow.set_terminated(night)
    assert clean_up(desk).closed == ()  # the next nightly starts while it waits
    second = approve(desk, 2)
    assert (second.outcome, second.champion, second.previous) == ("promoted", 2, 1)
    assert second.canary is not None
    few, half, every = (step.requests for step in second.canary.steps)
    assert 0 < few < half < every == PATIENT.canary_requests
    assert [step.errors for step in second.canary.steps] == [0, 0, 0]
    assert second.validated is not None
    assert [loaded.concurrency for loaded in second.validated.loads] == [1, 8, 32]
    assert champion(desk) == 2
    tags = Aliases(desk).tags(2)
    assert (tags["approved_by"], tags["reason"]) == ("ada", "the table is sound")
    assert tags["triton_version"].startswith("triton 2.")
    assert tags["audit_sha256"] == AuditLog(desk.audit_file).read()[-1].sha256
    records = AuditLog(desk.audit_file).read()
    assert [record.facts.get("exception") for record in records if record.event == "approved"] == [
        EXCEPTION | {"reasons": ["no baseline"]},
        None,
    ]
    approval = Manifest.load(ServingRepository(desk.serving_repository).folder(2)).approval
    assert approval is not None
    assert (approval.reviewer, approval.started_by) == ("ada", "bob")

    back = promotions.roll_back(desk, None, "bob", "it misbehaved")
    assert (back.version, back.from_version, back.previous) == (1, 2, None)
    assert champion(desk) == 1
    assert events(desk) == [*["started", "approved", "promoted"] * 2, "rolled back"]
    with pytest.raises(PromotionError, match="no predecessor"):
        promotions.roll_back(desk, None, "bob", "once more")


def test_invalid_input_is_asked_for_again_and_a_rejection_ends_the_promotion(
    desk: Settings,
) -> None:
    run = start(desk, 1, by="ada")
    stranger = {"verdict": "approve", "reviewer": "mallory", "reason": "trust me"}
    with pytest.raises(PromotionError, match="the policy's"):  # the command refuses at once
        promotions.decide(desk, "1", "approve", "mallory", "trust me")
    with get_client(sync_client=True) as client:  # and so does Prefect's server
        refused = client.resume_flow_run(run.id, run_input=stranger)
        assert refused.status == SetStateStatus.REJECT
        assert "'mallory' is not one of ['ada', 'grace']" in str(refused.details)
    for fields, why in (
        ({"verdict": "approve", "reviewer": "grace", "reason": " "}, "a reason is required"),
        ({"verdict": "approve", "reviewer": "grace", "reason": "sound"}, "name its owner"),
        ({"verdict": "approve", "reviewer": "ada", "reason": "mine"}, "ada started this promotion"),
    ):
        with pytest.raises(PromotionError, match=why):
            promotions.decide(desk, "1", "approve", fields["reviewer"], fields["reason"])
        answered = answer(run, **fields)  # invalid input in the form leads to the next form
        assert isinstance(answered, FlowRun)
        run = answered
        assert run.state is not None
        assert run.state.is_paused()
    outcome = promotions.decide(desk, run.name, "reject", "ada", "not today")
    assert isinstance(outcome, Promoted)
    assert outcome.outcome == "rejected"
    assert champion(desk) is None
    assert events(desk) == ["started", "rejected"]
    assert Aliases(desk).tags(1)["rejected_by"] == "ada"
    with pytest.raises(ConfigError, match="no promotion of 1 waits"):
        approve(desk, 1)


def test_a_first_version_is_approved_in_the_form(desk: Settings) -> None:
    run = start(desk, 1)
    outcome = answer(
        run, verdict="approve", reviewer="ada", reason="sound",
        exception=f"grace {EXCEPTION['expires']}",
    )  # fmt: skip
    assert isinstance(outcome, Promoted)
    assert outcome.outcome == "promoted"
    approved = next(one for one in AuditLog(desk.audit_file).read() if one.event == "approved")
    assert approved.facts["exception"] == EXCEPTION | {"reasons": ["no baseline"]}


def test_a_promotion_without_a_decision_is_rejected(desk: Settings) -> None:
    run = start(desk, 1, spec=PATIENT.model_copy(update={"decision_hours": 1e-7}))
    assert promotions_due() == [f"rejected, approval timed out: {run.name}"]
    with get_client(sync_client=True) as client:
        outcome = promotions._run_here(client.read_flow_run(run.id))
    assert isinstance(outcome, Promoted)
    assert outcome.outcome == "rejected"
    assert outcome.decided is not None
    assert outcome.decided.reviewer == ""
    assert outcome.decided.at <= dt.datetime.now(dt.UTC)
    assert "approval timed out" in Aliases(desk).tags(1)["reason"]
    assert events(desk) == ["started", "rejected"]


def test_an_alias_set_by_hand_moves_nothing_and_a_rollback_ignores_it(desk: Settings) -> None:
    start(desk, 1)
    approve(desk, 1)
    start(desk, 2)
    mlflow = MlflowClient(desk.tracking_uri)
    mlflow.set_registered_model_alias(MODEL_NAME, "champion", "2")
    outcome = approve(desk, 2)  # the approval is not void, and version 2 not "already serving"
    assert outcome.outcome == "promoted"
    registered(desk, 3)
    mlflow.set_registered_model_alias(MODEL_NAME, "champion", "3")
    again = promotions.start(desk, 2, "bob", PATIENT)
    assert isinstance(again, Promoted)
    assert (again.outcome, again.champion) == ("already serving", 2)
    back = promotions.roll_back(desk, None, "bob", "it misbehaved")
    assert (back.version, back.from_version) == (1, 2)
    assert champion(desk) == 1


def test_a_candidate_with_different_decisions_is_stopped(desk: Settings) -> None:
    start(desk, 1)
    approve(desk, 1)
    start(desk, 2, matrix=-weights(2))
    with pytest.raises(CanaryStoppedError, match="stopped in shadow: disagreement"):
        approve(desk, 2)
    assert champion(desk) == 1
    assert events(desk)[-1] == "stopped"


def test_a_concurrent_promotion_is_refused_and_keeps_its_approval(desk: Settings) -> None:
    waiting = start(desk, 1)
    with (
        ServingRepository(desk.serving_repository).exclusive(),
        pytest.raises(RepositoryBusyError, match="another promotion or rollback is running"),
    ):
        approve(desk, 1)
    assert champion(desk) is None
    outcome = promotions.start(desk, 1, "bob", PATIENT)
    assert isinstance(outcome, Promoted)
    assert (outcome.outcome, outcome.champion) == ("promoted", 1)
    assert champion(desk) == 1
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(waiting.id).state
    assert state is not None
    assert state.is_completed()
    assert events(desk) == ["started", "approved", "stopped", "promoted"]


def test_a_serving_version_is_not_promoted_again(desk: Settings) -> None:
    start(desk, 1)
    approve(desk, 1)
    start(desk, 2)
    approve(desk, 2)
    again = promotions.start(desk, 2, "bob", PATIENT)
    assert isinstance(again, Promoted)
    assert (again.outcome, again.champion, again.previous) == ("already serving", 2, 1)
    assert events(desk) == ["started", "approved", "promoted"] * 2
    assert promotions.roll_back(desk, None, "bob", "bad").version == 1, "2 is not its own past"
    assert champion(desk) == 1


def test_a_plan_of_another_tensorrt_is_refused_before_the_decision(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(desk, 1)
    real = EngineSidecar.load.__func__  # type: ignore[attr-defined]

    def as_a_plan(folder: Path) -> EngineSidecar:
        changes = {"plan": PLAN, "library": "tensorrt", "library_version": "9.9"}
        found: EngineSidecar = real(EngineSidecar, folder).model_copy(update=changes)
        return found

    monkeypatch.setattr(EngineSidecar, "load", as_a_plan)
    with pytest.raises(EngineUnavailableError, match=r"built by tensorrt 9\.9"):
        promotions.start(desk, 1, "bob", PATIENT)
    assert events(desk) == ["stopped"]


def test_requests_recorded_for_another_champion_stop_it_before_the_decision(
    desk: Settings,
) -> None:
    start(desk, 1)
    approve(desk, 1)
    features = ServedFeatures.of(FeatureSpec(feature_set="paired"), {"A": ("B",)})
    registered(desk, 2, features=features)
    with pytest.raises(PromotionError, match="version 2 sees other features than version 1"):
        promotions.start(desk, 2, "bob", PATIENT)
    assert events(desk) == ["started", "approved", "promoted", "stopped"]
    assert champion(desk) == 1


def test_promotions_that_are_refused(desk: Settings) -> None:
    with pytest.raises(PromotionError, match="nothing is staged"):
        promotions.start(desk, None, "bob", PATIENT)
    start(desk, 1)
    with pytest.raises(PromotionError, match="version 1 is already waiting for a decision"):
        promotions.start(desk, 1, "bob", PATIENT)
    with pytest.raises(PromotionError, match="version 7 is not staged"):
        promotions.start(desk, 7, "bob", PATIENT)
    registered(desk, 2, simulated=True, promotable=False)
    with pytest.raises(PromotionError, match="simulated data and is not promotable"):
        promotions.start(desk, 2, "bob", PATIENT)
    with pytest.raises(PromotionError, match="no version serves yet"):
        promotions.roll_back(desk, 1, "bob", "try")


def test_a_second_run_that_the_night_started_is_skipped(desk: Settings) -> None:
    """The event came late, after `promotions-due` had started the promotion."""
    waiting = start(desk, 1, by="nightly")
    with get_client(sync_client=True) as client:
        late = client.create_flow_run_from_deployment(
            promotions.deployment_id(), parameters={"version": 1, "started_by": "nightly"},
            state=Pending(),
        )  # fmt: skip
    found = promotions._run_here(late)
    assert isinstance(found, FlowRun)
    assert found.state is not None
    assert (found.state.name, found.state.is_completed()) == ("Skipped", True)
    assert "version 1 has had its promotion" in str(found.state.message)
    assert events(desk) == ["started"]
    assert approve(desk, 1).champion == 1
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(waiting.id).state
    assert state is not None
    assert state.is_completed()


def test_a_night_whose_event_was_lost_gets_its_promotion(desk: Settings) -> None:
    registered(desk, 1)
    want_promotion(MlflowClient(desk.tracking_uri), MODEL_NAME, "1")
    promotions.deployment_id()
    (said,) = promotions_due()
    run = runs_of(1)[0]
    assert said == f"version 1: promotion {run.name} started"
    assert promotions_due() == [], "one is enough"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Pending(), force=True)  # as a worker takes it
        run = client.read_flow_run(run.id)
    waiting = promotions._run_here(run)
    assert isinstance(waiting, FlowRun)
    assert waiting.state is not None
    assert waiting.state.is_paused()
    assert Aliases(desk).tags(1)["promotion"] == "opened"
    assert promotions_due() == []
    assert events(desk) == ["started"]


def test_with_a_shared_store_another_host_takes_over_what_was_promoted(
    desk: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TICKLINE_STORE", f"file://{tmp_path / 'store'}")
    shared = Settings().resolved()
    other = shared.resolved(home=tmp_path / "other", serving=tmp_path / "other" / "serving")
    start(shared, 1)
    assert follow_serving(other)  # before the decision, which may be made there
    policies = [PolicyFile.load(one.serving_repository) for one in (shared, other)]
    assert policies[0].sha256 == policies[1].sha256
    approve(shared, 1)
    assert [record.event for record in AuditLog.of(other).read()] == events(shared)
    assert serving_version(other).version == 1
    assert restore_serving(other, take_over=True) == (1,)
    here, there = (ServingRepository(one.serving_repository) for one in (shared, other))
    assert there.route() == here.route()
    policy = PolicyFile.find(other.serving_repository)
    require_approved(there, 1, AuditLog.of(other), policy)
    assert champion(shared) == 1
    with pytest.raises(ConfigError, match="the shared store has another host's"):
        promotions.roll_back(shared, 1, "bob", "it was taken over")
