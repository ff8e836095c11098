"""Which promotion is resumed, and on which host promotions run."""

import datetime as dt
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Scheduled

from flows.promote import promote
from flows.rollback import rollback
from flows.runs import promotions
from infra.services import POOL, SERVING_QUEUE
from model_code.repository.audit import AuditLog
from model_code.settings import PromotionSpec, Settings
from model_code.storage.serving import OtherHostError, require_here, share_serving
from tasks.promotion.emergency import emergency_rollback
from tests.support.policy import write_policy
from tests.support.promotion import registered

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


@pytest.fixture
def elsewhere(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A host without the serving repository, which is in another home with the same store."""
    store = f"file://{tmp_path / 'store'}"
    monkeypatch.setenv("TICKLINE_STORE", store)
    owner = home.resolved(store=store, serving=tmp_path / "owner" / "serving")
    require_here(owner)
    write_policy(owner)
    assert share_serving(owner) == ""
    return Settings().resolved()


def test_a_host_without_the_serving_repository_hands_a_promotion_over(
    elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(elsewhere, 1)
    with get_client(sync_client=True) as client:
        # promotions and a worker of other tests, which share the server
        before = {
            run.id
            for run in client.read_flow_runs(deployment_filter=one(promotions.deployment_id()))
        }
        with suppress(ObjectNotFound):
            queue = client.read_work_queue_by_name(SERVING_QUEUE, POOL)
            client.delete_work_queue_by_id(queue.id)
    with pytest.raises(OtherHostError, match="the serving repository is on host"):
        promotions.start(elsewhere, 1, "bob", PromotionSpec())
    with pytest.raises(OtherHostError, match="the serving repository is on host"):
        promotions.roll_back(elsewhere, 1, "bob", "wrong answers")
    with get_client(sync_client=True) as client:
        assert new(client, before) == []
        with suppress(ObjectAlreadyExists):
            client.create_work_queue(SERVING_QUEUE, work_pool_name=POOL)
        client.get_scheduled_flow_runs_for_work_pool(POOL, [SERVING_QUEUE])  # as a worker does

        def taken(*_: object) -> None:
            (run,) = new(client, before)
            client.set_flow_run_state(run.id, Completed(), force=True)

        monkeypatch.setattr("flows.runs.promotions.time.sleep", taken)
        run = promotions.start(elsewhere, 1, "bob", PromotionSpec())
        assert isinstance(run, FlowRun)
        assert run.parameters["version"] == 1
        client.delete_flow_run(run.id)


def new(client: SyncPrefectClient, before: set[uuid.UUID]) -> list[FlowRun]:
    """Runs of the deployment that were not there before."""
    runs = client.read_flow_runs(deployment_filter=one(promotions.deployment_id()))
    return [run for run in runs if run.id not in before]


def one(deployment: uuid.UUID) -> DeploymentFilter:
    return DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))


def test_flows_refuse_another_host_s_repository(elsewhere: Settings) -> None:
    with pytest.raises(OtherHostError):
        promote.fn(1)
    with pytest.raises(OtherHostError):
        rollback.fn(1, "bob", "wrong answers")
    with pytest.raises(OtherHostError):
        emergency_rollback(elsewhere, None, "bob", "wrong answers")
    assert not elsewhere.audit_file.exists()
