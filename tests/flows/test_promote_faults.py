"""Promotions and rollbacks that are killed, tampered with, or whose servers are down."""

import datetime as dt
import os
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient as PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Pending

from flows.promotions_due import promotions_due
from flows.runs import promotions
from infra.leases import lease
from infra.leases.lease import LeaseLostError
from infra.servers import ServerError
from infra.triton.key import control_key
from infra.triton.server import Ports, running
from model_code.errors import (
    IntegrityError,
    PromotionError,
    ServingError,
    StorageError,
)
from model_code.repository.audit import AuditLog
from model_code.repository.manifest import Manifest
from model_code.repository.policy import PolicyFile
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.canary import CanaryStoppedError, walk
from model_code.serving.client import TritonClient
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion import canary
from tasks.promotion.promotion_runs import open_runs
from tasks.promotion.records import Opened, Promoted, Shown
from tasks.promotion.show_evidence import require_unchanged
from tasks.runs.aliases import Aliases, RegistryDownError
from tests.support.desk import EXCEPTION, Killed, approve, champion, die, events, start
from tests.support.leases import revoke_leases
from tests.support.policy import write_policy
from tests.support.promotion import PATIENT, registered
from tests.support.serving import weights


def test_a_promotion_that_cannot_be_rejected_does_not_keep_the_others_open(desk: Settings) -> None:
    brief = PATIENT.model_copy(update={"decision_hours": 1e-7})
    first, second = start(desk, 1, spec=brief), start(desk, 2, spec=brief)
    real = PrefectClient.set_flow_run_state

    def refuse(self: PrefectClient, run_id: UUID, *what: Any, **how: Any) -> Any:
        if run_id == first.id:
            raise ConnectionError("gone")
        return real(self, run_id, *what, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrefectClient, "set_flow_run_state", refuse)
        with pytest.raises(PromotionError, match=rf"1 promotions .*{first.name}: gone"):
            promotions_due()
    assert [run.id for run in open_runs() if run.state and run.state.is_paused()] == [first.id]
    with get_client(sync_client=True) as client:
        outcome = promotions._run_here(client.read_flow_run(second.id))
    assert isinstance(outcome, Promoted)
    assert outcome.outcome == "rejected"
    assert promotions_due() == [f"rejected, approval timed out: {first.name}"]


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
        policy_sha256=PolicyFile.load(desk.serving_repository).sha256,
    )  # fmt: skip
    require_unchanged(desk, opened, shown)
    route = ServingRepository(desk.serving_repository).route_file
    Route(champion=Target(model=MODEL_NAME, version=1)).save(route)
    with pytest.raises(PromotionError, match="version 1 serves now, the evidence compared with"):
        require_unchanged(desk, opened, shown)
    Route(champion=Target(model=MODEL_NAME, version=2)).save(route)  # its own swap
    require_unchanged(desk, opened, shown)
    write_policy(desk, reviewers=["mallory"])
    with pytest.raises(PromotionError, match="the policy is not the one that version 2 was appro"):
        require_unchanged(desk, opened, shown)
    write_policy(desk)
    require_unchanged(desk, opened, shown)
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"?")
    with pytest.raises(IntegrityError, match="expected sha256"):
        require_unchanged(desk, opened, shown)


def test_answers_that_differ_from_the_benchmark_stop_the_promotion(desk: Settings) -> None:
    start(desk, 1, expected=weights(77, noise=1.0))
    with pytest.raises(Exception, match=r"golden request was answered wrongly|answers differ from"):
        approve(desk, 1)
    assert champion(desk) is None
    with TritonClient(str(desk.triton_url), control_key(desk)) as client:
        assert client.versions(MODEL_NAME) == []


def test_a_promotion_killed_in_the_swap_is_completed_by_the_same_command(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    approve(desk, 1)
    waiting = start(desk, 2)

    with monkeypatch.context() as patch:
        patch.setattr(Swap, "_set_route", die)
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


def test_rollback_rewrites_a_malformed_route(desk: Settings) -> None:
    start(desk, 1)
    approve(desk, 1)
    place = ServingRepository(desk.serving_repository)
    place.route_file.write_text("half of")
    with pytest.raises(IntegrityError, match="route file is malformed"):
        place.route()
    assert promotions.roll_back(desk, 1, "bob", "clients fail").version == 1
    assert champion(desk) == 1


def test_a_promotion_killed_before_its_record_serves_and_can_be_rolled_back_to(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    with monkeypatch.context() as patch:
        patch.setattr("flows.promote.record", die)
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
        patch.setattr(Aliases, "move", die)
        with pytest.raises(Killed):
            approve(desk, 3)
    place = ServingRepository(desk.serving_repository)
    assert place.route() == Route(champion=Target(model=MODEL_NAME, version=3))
    back = promotions.roll_back(desk, None, "bob", "bad")
    assert (back.version, back.from_version, back.previous) == (2, 3, 1)
    assert champion(desk) == 2
    assert Aliases(desk).aliases() == (2, 1)


def test_an_interrupted_rollback_is_completed_not_repeated(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2, 3):
        start(desk, version)
        approve(desk, version)
    with monkeypatch.context() as patch:
        patch.setattr(ServingRepository, "close_journal", die)
        with pytest.raises(Killed):
            promotions.roll_back(desk, None, "bob", "bad")
    assert Aliases(desk).aliases() == (2, 1)
    back = promotions.roll_back(desk, None, "bob", "bad")
    assert (back.version, back.from_version, back.previous) == (2, 3, 1)
    assert champion(desk) == 2
    assert Aliases(desk).aliases() == (2, 1)


def test_a_staging_folder_changed_during_validation_does_not_serve(
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


def test_a_promotion_whose_server_died_in_the_canary_is_resumed_by_the_same_command(
    desk: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Settings(home=tmp_path / "own").resolved()
    monkeypatch.setenv("TICKLINE_SERVING", str(own.serving_repository))
    ports = Ports.free()
    monkeypatch.setattr(Ports, "free", staticmethod(lambda: ports))  # it starts again on these
    with running(own, own.serving_repository) as server:
        monkeypatch.setenv("TICKLINE_TRITON_URL", server.grpc_url)
        desk = Settings().resolved()
        write_policy(desk)
        start(desk, 1)
        approve(desk, 1)
        start(desk, 2)

        async def kill_then_walk(*asked: Any, **how: Any) -> Any:
            os.kill(server.pid, signal.SIGKILL)
            return await walk(*asked, **how)

        with monkeypatch.context() as patch:
            patch.setattr(canary, "walk", kill_then_walk)
            with pytest.raises(ServingError):
                approve(desk, 2)
        place = ServingRepository(desk.serving_repository)
        assert place.route() == Route(champion=Target(model=MODEL_NAME, version=1))
        assert (place.versions(), place.journal()) == ((1,), None)
    with running(own, own.serving_repository, models=(MODEL_NAME,)) as server:
        assert champion(desk) == 1
        outcome = promotions.start(desk, 2, "bob", PATIENT)
        assert isinstance(outcome, Promoted)
        assert (outcome.outcome, outcome.champion) == ("promoted", 2)
        assert champion(desk) == 2
    assert events(desk).count("approved") == 2


def test_a_down_service_is_reported_before_anything_starts(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    with monkeypatch.context() as patch:
        patch.setenv("TICKLINE_MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(RegistryDownError, match="MLflow does not answer"):
            promotions.decide(Settings().resolved(), "1", "approve", "ada", "sound", **EXCEPTION)
    monkeypatch.delenv("TICKLINE_TRITON_URL")
    with monkeypatch.context() as patch:
        write_policy(desk, triton_url="127.0.0.1:9")
        with pytest.raises(ServerError, match="does not answer"):
            promotions.start(Settings().resolved(), 1, "bob", PATIENT)
    with monkeypatch.context() as patch:
        write_policy(desk, triton_url=None)
        with pytest.raises(ServerError, match="no Triton server is running") as caught:
            promotions.start(Settings().resolved(), 1, "bob", PATIENT)
    assert "tickline triton up" in caught.value.remedy
    assert events(desk) == ["started"]
    assert ServingRepository(desk.serving_repository).route() == Route()


def test_a_stop_that_cannot_be_recorded_makes_the_approval_void(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    approve(desk, 1)
    stopped = start(desk, 2, matrix=-weights(2))
    append = AuditLog.append

    def full(self: AuditLog, event: str, key: str, facts: Any) -> Any:
        if event == "stopped":
            raise StorageError("cannot write audit.jsonl: No space left on device")
        return append(self, event, key, facts)

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "append", full)
        with pytest.raises(CanaryStoppedError) as caught:
            approve(desk, 2)
    (note,) = caught.value.__notes__
    assert "the stop is not in the audit file, so an approval is void" in note
    assert events(desk)[-1] == "approved"
    again = promotions.start(desk, 2, "bob", PATIENT)
    assert isinstance(again, FlowRun), "not resumed as approved"
    assert again.id != stopped.id
    assert again.state is not None
    assert again.state.is_paused()
    assert champion(desk) == 1


def test_a_promotion_that_lost_its_lease_publishes_and_records_nothing(
    desk: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TICKLINE_STORE", f"file://{tmp_path / 'store'}")
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    shared = Settings().resolved()
    start(shared, 1)

    def lost(*arguments: Any) -> None:
        require_unchanged(*arguments)
        revoke_leases()

    with monkeypatch.context() as patch:
        patch.setattr("flows.promote.require_unchanged", lost)
        with pytest.raises(LeaseLostError, match="the Prefect server has ended it"):
            approve(shared, 1)
    assert events(shared) == ["started", "approved"]
    assert AuditLog.of(shared).read() == AuditLog(shared.audit_file).read()
    assert ServingRepository(shared.serving_repository).known() == ()
    assert champion(shared) is None
    resumed = promotions.start(shared, 1, "bob", PATIENT)
    assert isinstance(resumed, FlowRun), "its stop is not recorded, so it needs a new decision"


def test_a_leftover_does_not_write_over_what_serves(
    desk: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(desk, 1)
    approve(desk, 1)
    leftover = start(desk, 2)
    with monkeypatch.context() as patch:
        patch.setattr("flows.promote.record", die)
        with pytest.raises(Killed):
            approve(desk, 2)
    assert promotions.roll_back(desk, 1, "bob", "killed").version == 1
    with get_client(sync_client=True) as client:
        left = client.read_flow_run(leftover.id)
        client.set_flow_run_state(left.id, Pending(), force=True)
        left = client.read_flow_run(leftover.id)
    with pytest.raises(PromotionError, match="version 1 serves by now, not version 2"):
        promotions._run_here(left)
    assert "approved_by" not in Aliases(desk).tags(2)
    assert champion(desk) == 1
    again = promotions.start(desk, 2, "bob", PATIENT)
    assert isinstance(again, FlowRun)
    outcome = promotions.decide(desk, "2", "approve", "grace", "again")
    assert isinstance(outcome, Promoted)
    tags = Aliases(desk).tags(2)
    assert tags["approved_by"] == "grace"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(left.id, Pending(), force=True)
        left = client.read_flow_run(left.id)
    with pytest.raises(PromotionError, match="version 2 was promoted by another run since"):
        promotions._run_here(left)
    assert Aliases(desk).tags(2) == tags
    assert champion(desk) == 2
