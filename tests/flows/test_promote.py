"""Promotions from evidence to serving, through a real Prefect server and a real Triton."""

import datetime as dt
import os
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from builders_promotion import PATIENT, registered
from builders_serving import logits, weights, windows
from mlflow.tracking import MlflowClient
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient as PrefectClient
from prefect.client.schemas.objects import FlowRun

from flows import promotions
from flows.promote import expire
from infra.servers import ServerError
from infra.triton.server import TritonServer, running
from model_code.engines.sidecar import EngineSidecar, PlanFacts
from model_code.errors import (
    ConfigError,
    EngineUnavailableError,
    IntegrityError,
    PromotionError,
    ServingError,
)
from model_code.repository.audit import AuditLog
from model_code.repository.manifest import Manifest
from model_code.repository.serving import RepositoryBusyError, ServingRepository
from model_code.serving.canary import CanaryStoppedError
from model_code.serving.candidate import CANDIDATE_NAME
from model_code.serving.client import TritonClient
from model_code.serving.route import Route, Target
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, PromotionSpec, Settings
from tasks import proving, swapping
from tasks.names import Names, RegistryDownError
from tasks.opening import open_runs, require_unchanged
from tasks.promotion_results import Opened, Promoted, Shown
from tasks.sweep import sweep


@pytest.fixture
def desk(home: Settings, live_triton: TritonServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a desk with two reviewers, a live server and the session's Prefect."""
    values = {
        "TICKLINE_TRITON_URL": live_triton.grpc_url,
        "TICKLINE_SERVING": str(live_triton.repository),
        "TICKLINE_REVIEWERS": "ada, grace",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(promotions, "_worker_online", lambda: False)  # another test's may linger
    with get_client(sync_client=True) as client:
        for run in open_runs():
            client.delete_flow_run(run.id)
    return Settings().resolved()


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
    outcome = promotions.decide(desk, str(version), "approve", reviewer, "the table is sound")
    assert isinstance(outcome, Promoted)
    return outcome


def champion(desk: Settings) -> int | None:
    """Who serves, by name, by route and by the server's own answer."""
    version, _ = Names(desk).aliases()
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
    run = mlflow.get_run(night)
    found = mlflow.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{night}'")
    path = mlflow.download_artifacts(found[0].info.run_id, "promotion/evidence.html")
    return Path(path).read_text()


class Killed(BaseException):
    """The process is gone: nothing after this line runs."""


def _die(*_: object, **__: object) -> None:
    raise Killed


def answer(run: FlowRun, **fields: str) -> FlowRun | Promoted:
    """Fill in Prefect's form, which knows nothing of allow-lists, and go on with the run."""
    with get_client(sync_client=True) as client:
        client.resume_flow_run(run.id, run_input=fields)
        found = client.read_flow_run(run.id)
    return promotions._work_on(found)


def test_first_promotion_then_second_then_rollback(desk: Settings) -> None:
    start(desk, 1)
    first = approve(desk, 1)
    assert (first.outcome, first.champion, first.previous) == ("promoted", 1, None)
    assert first.shadow is not None
    assert first.canary is not None
    assert "no baseline" in str(first.shadow.skipped)
    assert "no baseline" in str(first.canary.skipped)
    assert champion(desk) == 1
    assert "No baseline." in evidence(desk, 1)

    start(desk, 2)
    mlflow = MlflowClient(desk.tracking_uri)
    mlflow.set_terminated(mlflow.get_model_version(MODEL_NAME, "2").run_id)
    assert sweep(desk).closed == ()  # the next night begins while it waits
    second = approve(desk, 2)
    assert (second.outcome, second.champion, second.previous) == ("promoted", 2, 1)
    assert second.canary is not None
    few, half, every = (step.requests for step in second.canary.steps)
    assert 0 < few < half < every == PATIENT.canary_requests
    assert [step.errors for step in second.canary.steps] == [0, 0, 0]
    assert second.validated is not None
    assert [loaded.concurrency for loaded in second.validated.loads] == [1, 8, 32]
    assert champion(desk) == 2
    tags = Names(desk).tags(2)
    assert (tags["approved_by"], tags["reason"]) == ("ada", "the table is sound")
    assert tags["triton_version"].startswith("triton 2.")
    assert tags["audit_sha256"] == AuditLog(desk.audit_file).read()[-1].sha256
    approval = Manifest.load(ServingRepository(desk.serving_repository).folder(2)).approval
    assert approval is not None
    assert (approval.reviewer, approval.started_by) == ("ada", "bob")

    back = promotions.roll_back(desk, None, "bob", "it misbehaved")
    assert (back.version, back.from_version, back.previous) == (1, 2, None)
    assert champion(desk) == 1
    assert events(desk) == [*["started", "approved", "promoted"] * 2, "rolled back"]
    with pytest.raises(PromotionError, match="no predecessor"):
        promotions.roll_back(desk, None, "bob", "once more")


def test_bad_input_is_asked_for_again_and_a_rejection_ends_it(desk: Settings) -> None:
    run: FlowRun | Promoted = start(desk, 1, by="ada")
    for fields, why in (
        ({"verdict": "approve", "reviewer": "mallory", "reason": "trust me"}, "allow-list"),
        ({"verdict": "approve", "reviewer": "grace", "reason": " "}, "a reason is needed"),
        ({"verdict": "approve", "reviewer": "ada", "reason": "mine"}, "ada started this promotion"),
    ):
        with pytest.raises(PromotionError, match=why):  # the command says so at once
            promotions.decide(desk, "1", fields["verdict"], fields["reviewer"], fields["reason"])
        assert isinstance(run, FlowRun)
        run = answer(run, **fields)  # and the form's answer leads to the next form
        assert isinstance(run, FlowRun)
        assert run.state is not None
        assert run.state.is_paused()
    outcome = promotions.decide(desk, run.name, "reject", "ada", "not today")
    assert isinstance(outcome, Promoted)
    assert outcome.outcome == "rejected"
    assert champion(desk) is None
    assert events(desk) == ["started", "rejected"]
    assert Names(desk).tags(1)["rejected_by"] == "ada"
    with pytest.raises(ConfigError, match="no promotion of 1 waits"):
        approve(desk, 1)


def test_without_a_decision_it_is_rejected(desk: Settings) -> None:
    run = start(desk, 1, spec=PATIENT.model_copy(update={"decision_hours": 1e-7}))
    assert expire() == 1
    with get_client(sync_client=True) as client:
        outcome = promotions._work_on(client.read_flow_run(run.id))
    assert isinstance(outcome, Promoted)
    assert outcome.outcome == "rejected"
    assert outcome.decided is not None
    assert outcome.decided.reviewer == ""
    assert outcome.decided.at <= dt.datetime.now(dt.UTC)
    assert "nobody decided" in Names(desk).tags(1)["reason"]
    assert events(desk) == ["started", "rejected"]


def test_a_promotion_that_cannot_be_rejected_does_not_keep_the_others_open(desk: Settings) -> None:
    brief = PATIENT.model_copy(update={"decision_hours": 1e-7})
    first, second = start(desk, 1, spec=brief), start(desk, 2, spec=brief)
    real = PrefectClient.resume_flow_run

    def refuse(self: PrefectClient, run_id: UUID, **how: Any) -> Any:
        if run_id == first.id:
            raise ConnectionError("gone")
        return real(self, run_id, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrefectClient, "resume_flow_run", refuse)
        with pytest.raises(PromotionError, match=rf"1 promotions .*{first.name}: gone"):
            expire()
    assert [run.id for run in open_runs() if run.state and run.state.is_paused()] == [first.id]
    with get_client(sync_client=True) as client:
        outcome = promotions._work_on(client.read_flow_run(second.id))
    assert isinstance(outcome, Promoted)
    assert outcome.outcome == "rejected"
    assert expire() == 1


def test_approval_after_the_candidate_changed_is_void(desk: Settings) -> None:
    start(desk, 1)
    folder = desk.staging_repository / MODEL_NAME / "1"
    manifest = Manifest.load(folder)
    changed = manifest.model_copy(update={"code_commit": "e" * 40})
    (folder / "manifest.json").write_bytes(changed.text())
    with pytest.raises(PromotionError, match="is not what was approved"):
        approve(desk, 1)
    assert champion(desk) is None
    assert events(desk) == ["started", "approved", "stopped"]


def test_approval_is_void_for_a_tampered_engine_or_another_champion(desk: Settings) -> None:
    registered(desk, 1)
    registered(desk, 2)
    folder = desk.staging_repository / MODEL_NAME / "2"
    manifest = Manifest.load(folder)
    opened = Opened(
        version=2, started_by="bob", candidate=str(folder), mlflow_run_id="m",
        opened_at=dt.datetime.now(dt.UTC),
    )  # fmt: skip
    shown = Shown(
        identity=manifest.identity, engine_sha256="", config_sha256="", engine="", champion=None,
        verdict_json="", simulated=False, page_url="", run_url="", summary="",
    )  # fmt: skip
    require_unchanged(desk, opened, shown)
    Names(desk).move(1, None)
    with pytest.raises(PromotionError, match="version 1 serves now, the evidence compared with"):
        require_unchanged(desk, opened, shown)
    Names(desk).move(2, 1)  # its own swap, seen by a rerun
    require_unchanged(desk, opened, shown)
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"?")
    with pytest.raises(IntegrityError, match="expected sha256"):
        require_unchanged(desk, opened, shown)


def test_server_that_answers_otherwise_than_the_benchmark_stops_it(desk: Settings) -> None:
    start(desk, 1, expected=weights(77, noise=1.0))
    with pytest.raises(Exception, match=r"golden request was answered wrongly|answers otherwise"):
        approve(desk, 1)
    assert champion(desk) is None
    with TritonClient(str(desk.triton_url)) as client:
        assert client.versions(MODEL_NAME) == []


def test_candidate_that_decides_otherwise_is_stopped(desk: Settings) -> None:
    start(desk, 1)
    approve(desk, 1)
    start(desk, 2, matrix=-weights(2))
    with pytest.raises(CanaryStoppedError, match="stopped in shadow: disagreement"):
        approve(desk, 2)
    assert champion(desk) == 1
    assert events(desk)[-1] == "stopped"


def test_killed_in_the_swap_the_same_command_completes_it(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    approve(desk, 1)
    waiting = start(desk, 2)

    with monkeypatch.context() as patch:
        patch.setattr(Swap, "_turn", _die)
        with pytest.raises(Killed):
            approve(desk, 2)
    place = ServingRepository(desk.serving_repository)
    assert place.journal() is not None
    assert place.route().champion is not None
    assert champion(desk) == 1

    outcome = promotions.start(desk, 2, "bob", PATIENT)
    assert isinstance(outcome, Promoted)
    assert (outcome.outcome, outcome.champion, outcome.previous) == ("promoted", 2, 1)
    assert champion(desk) == 2
    assert place.journal() is None
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(waiting.id).state  # the same run, approved once
    assert state is not None
    assert state.is_completed()
    assert events(desk).count("approved") == 2


def test_a_promotion_beside_another_is_refused_and_its_approval_stands(desk: Settings) -> None:
    waiting = start(desk, 1)
    with (
        ServingRepository(desk.serving_repository).exclusive(),
        pytest.raises(RepositoryBusyError, match="another promotion or rollback is at work"),
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


def test_rollback_writes_a_malformed_route_anew(desk: Settings) -> None:
    start(desk, 1)
    approve(desk, 1)
    place = ServingRepository(desk.serving_repository)
    place.route_file.write_text("half of")
    with pytest.raises(IntegrityError, match="route file is malformed"):
        place.route()
    assert promotions.roll_back(desk, 1, "bob", "clients fail").version == 1
    assert champion(desk) == 1


def test_what_serves_already_is_not_promoted_again(desk: Settings) -> None:
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


def test_killed_before_it_was_recorded_it_serves_and_can_be_rolled_back_to(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    with monkeypatch.context() as patch:
        patch.setattr(swapping, "record_promotion", _die)
        with pytest.raises(Killed):
            approve(desk, 1)
    assert champion(desk) == 1
    start(desk, 2)
    approve(desk, 2)
    assert promotions.roll_back(desk, None, "bob", "bad").version == 1
    assert champion(desk) == 1


def test_rollback_of_a_promotion_killed_in_its_swap_goes_one_version_back(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        start(desk, version)
        approve(desk, version)
    start(desk, 3)
    with monkeypatch.context() as patch:
        patch.setattr(Names, "move", _die)
        with pytest.raises(Killed):
            approve(desk, 3)
    place = ServingRepository(desk.serving_repository)
    assert place.route() == Route(champion=Target(model=MODEL_NAME, version=3))
    back = promotions.roll_back(desk, None, "bob", "bad")
    assert (back.version, back.from_version, back.previous) == (2, 3, 1)
    assert champion(desk) == 2
    assert Names(desk).aliases() == (2, 1)


def test_rollback_killed_before_its_end_is_completed_not_repeated(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2, 3):
        start(desk, version)
        approve(desk, version)
    with monkeypatch.context() as patch:
        patch.setattr(ServingRepository, "close_journal", _die)
        with pytest.raises(Killed):
            promotions.roll_back(desk, None, "bob", "bad")
    assert Names(desk).aliases() == (2, 1)
    back = promotions.roll_back(desk, None, "bob", "bad")
    assert (back.version, back.from_version, back.previous) == (2, 3, 1)
    assert champion(desk) == 2
    assert Names(desk).aliases() == (2, 1)


def test_staging_folder_changed_while_it_was_proved_does_not_serve(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    publish = ServingRepository.publish

    def change_then_publish(self: ServingRepository, candidate: Path, approval: Any) -> None:
        manifest = Manifest.load(candidate)
        other = manifest.model_copy(update={"code_commit": "e" * 40})
        (candidate / "manifest.json").write_bytes(other.text())
        publish(self, candidate, approval)

    monkeypatch.setattr(ServingRepository, "publish", change_then_publish)
    with pytest.raises(PromotionError, match="is not what was approved"):
        approve(desk, 1)
    assert champion(desk) is None
    assert ServingRepository(desk.serving_repository).known() == ()


def test_server_killed_in_the_canary_the_same_command_goes_on(
    desk: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Settings(home=tmp_path / "own").resolved()
    monkeypatch.setenv("TICKLINE_SERVING", str(own.serving_repository))
    with running(own, own.serving_repository) as server:
        monkeypatch.setenv("TICKLINE_TRITON_URL", server.grpc_url)
        desk = Settings().resolved()
        start(desk, 1)
        approve(desk, 1)
        start(desk, 2)
        real = proving.walk

        async def kill_then_walk(*asked: Any) -> Any:
            os.kill(server.pid, signal.SIGKILL)
            return await real(*asked)

        with monkeypatch.context() as patch:
            patch.setattr(proving, "walk", kill_then_walk)
            with pytest.raises(ServingError):
                approve(desk, 2)
        place = ServingRepository(desk.serving_repository)
        assert place.route() == Route(champion=Target(model=MODEL_NAME, version=1))
        assert (place.versions(), place.journal()) == ((1,), None)
    with running(own, own.serving_repository, models=(MODEL_NAME,)) as server:
        monkeypatch.setenv("TICKLINE_TRITON_URL", server.grpc_url)
        desk = Settings().resolved()
        assert champion(desk) == 1
        outcome = promotions.start(desk, 2, "bob", PATIENT)
        assert isinstance(outcome, Promoted)
        assert (outcome.outcome, outcome.champion) == ("promoted", 2)
        assert champion(desk) == 2
    assert events(desk).count("approved") == 2


def test_what_is_down_is_said_before_anything_is_begun(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    with monkeypatch.context() as patch:
        patch.setenv("TICKLINE_MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(RegistryDownError, match="MLflow does not answer"):
            promotions.decide(Settings().resolved(), "1", "approve", "ada", "sound")
    with monkeypatch.context() as patch:
        patch.setenv("TICKLINE_TRITON_URL", "127.0.0.1:9")
        with pytest.raises(ServerError, match="does not answer"):
            promotions.start(Settings().resolved(), 1, "bob", PATIENT)
    with monkeypatch.context() as patch:
        patch.delenv("TICKLINE_TRITON_URL")
        with pytest.raises(ServerError, match="no Triton server is running") as caught:
            promotions.start(Settings().resolved(), 1, "bob", PATIENT)
    assert "tickline triton up" in caught.value.remedy
    assert events(desk) == ["started"]
    assert ServingRepository(desk.serving_repository).route() == Route()


def test_a_plan_of_another_tensorrt_is_refused_before_anybody_is_asked(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(desk, 1)
    real = EngineSidecar.load.__func__  # type: ignore[attr-defined]
    plan = PlanFacts.model_construct()

    def as_a_plan(folder: Path) -> EngineSidecar:
        changes = {"plan": plan, "library": "tensorrt", "library_version": "9.9"}
        found: EngineSidecar = real(EngineSidecar, folder).model_copy(update=changes)
        return found

    monkeypatch.setattr(EngineSidecar, "load", as_a_plan)
    with pytest.raises(EngineUnavailableError, match=r"built by tensorrt 9\.9"):
        promotions.start(desk, 1, "bob", PATIENT)
    assert events(desk) == ["stopped"]


def test_what_may_not_be_promoted(desk: Settings) -> None:
    with pytest.raises(PromotionError, match="nothing is staged"):
        promotions.start(desk, None, "bob", PATIENT)
    start(desk, 1)
    with pytest.raises(PromotionError, match="version 1 is under decision already"):
        promotions.start(desk, 1, "bob", PATIENT)
    with pytest.raises(PromotionError, match="version 7 is not staged"):
        promotions.start(desk, 7, "bob", PATIENT)
    registered(desk, 2, simulated=True, promotable=False)
    with pytest.raises(PromotionError, match="simulated data and not promotable"):
        promotions.start(desk, 2, "bob", PATIENT)
    with pytest.raises(PromotionError, match="no version serves yet"):
        promotions.roll_back(desk, 1, "bob", "try")
