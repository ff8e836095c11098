"""The beginning of a promotion: may it begin, and what the reviewer is shown."""

import datetime as dt
import tempfile
from pathlib import Path

from prefect import get_client
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.runtime import flow_run

from infra.triton.image import require_compatible
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import PromotionError
from model_code.repository.audit import AuditLog
from model_code.repository.manifest import Manifest
from model_code.repository.staging import staged_versions
from model_code.settings import MODEL_NAME, PromotionSpec, Settings
from tasks import tracking
from tasks.evidence import gather, render, summary
from tasks.heartbeat import signs
from tasks.names import Names
from tasks.promotion_results import Opened, Shown
from tasks.step import step

FLOW = "promote"
PAGE = "promotion/evidence.html"
OPEN = (StateType.PAUSED, StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED)


@step("open promotion")
def open_promotion(
    settings: Settings, version: int, started_by: str, spec: PromotionSpec
) -> Opened:
    """Check that the version may be promoted at all, and open its MLflow run.

    Raises:
        PromotionError: not staged, failed its gate, simulated, serving or under decision already.
        IntegrityError: its bytes are not those of its manifest.
        EngineUnavailableError: a plan of a TensorRT that the pinned server does not hold.
    """
    folder = settings.staging_repository / MODEL_NAME / str(version)
    if version not in staged_versions(settings.staging_repository):
        known = ", ".join(map(str, staged_versions(settings.staging_repository)))
        raise PromotionError(
            f"version {version} is not staged",
            where=str(settings.staging_repository),
            remedy=f"choose one of {known}" if known else "tickline nightly stages a candidate",
        )
    manifest = Manifest.load(folder)
    _require_promotable(manifest, spec)
    require_compatible(EngineSidecar.load(folder))
    _require_alone(version)
    names = Names(settings)
    names.tags(version)  # the registry knows it
    if version == names.aliases()[0]:
        raise PromotionError(
            f"version {version} serves already",
            where="alias champion in MLflow",
            remedy=f"nothing to do; to prove that it answers: tickline rollback --to {version}",
        )
    mlflow = tracking.client(settings)
    run_id = tracking.nested(mlflow, settings, manifest.mlflow_run_id, f"promotion {flow_run.name}")
    AuditLog(settings.audit_file).append(
        "started",
        f"started-{flow_run.id}",
        {"version": version, "by": started_by, "flow_run_id": str(flow_run.id)},
    )
    return Opened(
        version=version,
        started_by=started_by,
        candidate=str(folder),
        mlflow_run_id=run_id,
        opened_at=dt.datetime.now(dt.UTC),
    )


def take_over(settings: Settings, opened: Opened) -> None:
    """Mark the promotion's MLflow run as this process's; a resumed one was another process's."""
    mlflow = tracking.client(settings)
    tags = {tracking.PROMOTION_TAG: str(flow_run.id), **signs()}
    tracking.set_tags(mlflow, opened.mlflow_run_id, tags)
    mlflow.update_run(opened.mlflow_run_id, status="RUNNING")


@step("show evidence")
def show_evidence(settings: Settings, opened: Opened) -> Shown:
    """Write the evidence page to MLflow and Prefect's artefact; return what was shown.

    Raises:
        PromotionError: there is no verdict to show.
    """
    candidate = Path(opened.candidate)
    manifest = Manifest.load(candidate)
    engine = EngineSidecar.load(candidate).engine
    champion, _ = Names(settings).aliases()
    mlflow = tracking.client(settings)
    experiment = tracking.experiment_id(mlflow, settings)
    runs = f"{settings.mlflow_ui_url}/#/experiments/{experiment}/runs"
    run_url = f"{runs}/{opened.mlflow_run_id}"
    page_url = f"{run_url}/artifacts/{PAGE}"
    links = {
        "the night in MLflow": f"{runs}/{manifest.mlflow_run_id}",
        "the night in Prefect": f"{settings.prefect_ui_url}/runs/flow-run/{manifest.flow_run_id}",
        "this promotion in MLflow": run_url,
        "this promotion in Prefect": f"{settings.prefect_ui_url}/runs/flow-run/{flow_run.id}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        evidence = gather(mlflow, candidate, engine, champion, links, Path(scratch))
        mlflow.log_text(opened.mlflow_run_id, render(evidence), PAGE)
    text = summary(evidence, page_url)
    create_markdown_artifact(
        text, key="promotion-evidence", description=f"Promote version {manifest.version}?"
    )
    create_link_artifact(
        page_url, link_text="evidence page", key="evidence-page", description="Plots and tables."
    )
    return Shown(
        identity=manifest.identity,
        engine_sha256=manifest.engine_sha256,
        config_sha256=manifest.config_sha256,
        engine=engine,
        champion=champion,
        verdict_json=evidence.verdict.model_dump_json(),
        simulated=manifest.simulated,
        page_url=page_url,
        run_url=run_url,
        summary=text,
    )


def require_unchanged(settings: Settings, opened: Opened, shown: Shown) -> None:
    """An approval is for what was shown: the same bytes, against the same champion.

    Raises:
        PromotionError: something else lies there now, or another version serves.
        IntegrityError: the bytes do not even fit their own manifest.
    """
    found = Manifest.load(Path(opened.candidate)).identity
    if found != shown.identity:
        raise PromotionError(
            f"version {opened.version} is not what was approved: "
            f"shown {shown.identity[:12]}, now {found[:12]}",
            where=opened.candidate,
            remedy="the approval is void; find out who changed it, then start again with a "
            "version whose bytes are sound",
        )
    champion, _ = Names(settings).aliases()
    if champion not in {shown.champion, opened.version}:
        raise PromotionError(
            f"version {champion} serves now, the evidence compared with "
            f"{'none' if shown.champion is None else f'version {shown.champion}'}",
            where=settings.tracking_uri,
            remedy=f"decide again on fresh evidence: tickline promote --version {opened.version}",
        )


def open_runs() -> list[FlowRun]:
    """Promotions that are not ended, oldest first."""
    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(OPEN)))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
            flow_run_filter=FlowRunFilter(state=states),
        )
    return sorted(found, key=lambda run: str(run.created))


def newest_run(version: int) -> FlowRun | None:
    """The newest promotion of a version, ended or not."""
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])))
    runs = [run for run in found if str(run.parameters.get("version")) == str(version)]
    return max(runs, key=lambda run: str(run.created), default=None)


def _require_alone(version: int) -> None:
    own = str(flow_run.id)
    for run in open_runs():
        waits = run.state is not None and run.state.is_paused()
        if str(run.id) != own and str(run.parameters.get("version")) == str(version) and waits:
            raise PromotionError(
                f"version {version} is under decision already: run {run.name}",
                remedy=f"tickline approve {version} or tickline reject {version}",
            )


def _require_promotable(manifest: Manifest, spec: PromotionSpec) -> None:
    if manifest.verdict == "fail":
        raise PromotionError(
            f"version {manifest.version} failed its gate", remedy="nothing; the next night may pass"
        )
    if not manifest.promotable and not (manifest.simulated and spec.allow_simulated):
        raise PromotionError(
            f"version {manifest.version} is of simulated data and not promotable",
            remedy="tickline nightly --data PATH on real ticks; to rehearse all the same: "
            "tickline promote --allow-simulated",
        )
