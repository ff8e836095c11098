"""Step `open promotion`: check that the version may be promoted, and open its MLflow run."""

import datetime as dt
from pathlib import Path

from prefect.runtime import flow_run
from rich.markup import escape

from infra.leases.lease import require_held
from infra.logs import identify
from infra.triton.image import require_compatible
from model_code.benchmark.verdict import ACCEPTED
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import PromotionError
from model_code.repository.audit import AuditLog
from model_code.repository.manifest import Manifest
from model_code.repository.policy import PolicyFile
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, PromotionSpec, Settings
from model_code.storage.staged import fetch_all_staged
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.exceptions import require_none_lapsed
from tasks.promotion.promotion_runs import open_runs
from tasks.promotion.records import Opened
from tasks.promotion.registered import require_registered
from tasks.promotion.shadow import recorded_windows
from tasks.runs import mlflow_runs
from tasks.runs.aliases import Aliases, RegistryDownError
from tasks.runs.console import console
from tasks.runs.heartbeat import heartbeat_tags
from tasks.runs.outbox import mark_opened
from tasks.runs.serving_version import serving_version
from tasks.runs.version_tags import EXPIRED_TAG


@once_per_run("open promotion")
def open_promotion(
    settings: Settings, version: int, started_by: str, spec: PromotionSpec, policy: PolicyFile
) -> Opened:
    """Check that the version may be promoted, and open its MLflow run.

    Raises:
        PromotionError: looser than the policy allows, expired, not staged, failed its gate,
            simulated, already serving, or already waiting for a decision; the serving version's
            exception has lapsed; or as `recorded_windows`.
        IntegrityError: its bytes do not match its manifest, or not what its night recorded.
        EngineUnavailableError: its plan needs another TensorRT than the pinned server has.
    """
    policy.require_within(spec)
    _require_not_expired(settings, version)
    folder = _candidate(settings, version)
    staged = fetch_all_staged(settings)
    if version not in staged:
        known = ", ".join(map(str, staged))
        raise PromotionError(
            f"version {version} is not staged",
            where=str(settings.staging_repository),
            remedy=f"choose one of {known}" if known else "tickline nightly stages a candidate",
        )
    manifest = Manifest.load(folder)
    _require_promotable(manifest, spec)
    require_none_lapsed(settings)
    require_compatible(EngineSidecar.load(folder))
    repository = ServingRepository(settings.serving_repository)
    epoch = repository.fence.newest()
    recorded_windows(repository, folder)  # before the decision
    _require_no_open_decision(version)
    require_registered(settings, folder)
    serving = serving_version(settings)
    if serving.warning:
        console.print(f"  [yellow]warning[/]: {escape(serving.warning)}")
    if version == serving.version:
        raise PromotionError(
            f"version {version} is already serving",
            where=str(settings.serving_repository),
            remedy=f"nothing to do. To verify: tickline rollback --to {version}",
        )
    mlflow = mlflow_runs.client(settings)
    run_id = mlflow_runs.nested(
        mlflow, settings, manifest.mlflow_run_id, f"promotion {flow_run.id}"
    )
    mlflow.update_run(run_id, name=str(flow_run.name))
    excused = {}
    if manifest.verdict == "not comparable" and spec.not_comparable is not None:
        excused = {"not_comparable": spec.not_comparable}
    require_held()
    AuditLog.of(settings).append(
        "started",
        f"started-{flow_run.id}",
        {
            "version": version,
            "by": started_by,
            "night_by": manifest.started_by or "",
            "flow_run_id": str(flow_run.id),
            "policy_sha256": policy.sha256,
            "loosened": list(policy.policy.loosened(spec)),
        }
        | excused,
    )
    mlflow_runs.set_tags(mlflow, run_id, excused)
    mark_opened(settings, version)
    return Opened(
        version=version,
        started_by=started_by,
        candidate=settings.inside(folder),
        mlflow_run_id=run_id,
        opened_at=dt.datetime.now(dt.UTC),
        night_by=manifest.started_by or "",
        epoch=epoch,
    )


def is_own(settings: Settings) -> bool:
    """Whether this flow run has opened its promotion before."""
    records = AuditLog.of(settings).read()
    return any(record.key == f"started-{flow_run.id}" for record in records)


def take_over(settings: Settings, opened: Opened) -> Opened:
    """Make this process the owner of the promotion's MLflow run, also after a suspension.

    Returns:
        The promotion with the candidate's folder in this home, which may have moved since.

    Raises:
        PromotionError: the stored result of `open promotion` is of an earlier Tickline.
    """
    if not isinstance(opened, Opened):  # Prefect returns a plain dict for a class that has moved
        raise PromotionError(
            "this promotion was started by an earlier version of Tickline",
            remedy="start it again: tickline promote --version N",
        )
    identify(mlflow_run_id=opened.mlflow_run_id)
    mlflow = mlflow_runs.client(settings)
    tags = {mlflow_runs.PROMOTION_TAG: str(flow_run.id), **heartbeat_tags()}
    mlflow_runs.set_tags(mlflow, opened.mlflow_run_id, tags)
    mlflow.update_run(opened.mlflow_run_id, status="RUNNING")
    folder = _candidate(settings, opened.version)
    return opened.model_copy(update={"candidate": str(folder)})


def _candidate(settings: Settings, version: int) -> Path:
    return settings.staging_repository / MODEL_NAME / str(version)


def _require_no_open_decision(version: int) -> None:
    own = str(flow_run.id)
    for run in open_runs():
        waits = run.state is not None and run.state.is_paused()
        if str(run.id) != own and str(run.parameters.get("version")) == str(version) and waits:
            raise PromotionError(
                f"version {version} is already waiting for a decision: run {run.name}",
                remedy=f"tickline approve {version} or tickline reject {version}",
            )


def _require_not_expired(settings: Settings, version: int) -> None:
    """Refuse a version whose files `tickline gc` deletes."""
    try:
        expired = Aliases(settings).tags(version).get(EXPIRED_TAG)
    except RegistryDownError:
        raise
    except PromotionError:  # not registered; another check says so
        return
    if expired is not None:
        raise PromotionError(
            f"version {version} has expired: it was not promoted in time, and its files are "
            "deleted",
            where=f"tag {EXPIRED_TAG} of the version in MLflow: {expired}",
            remedy="promote a newer version; tickline nightly stages one. To keep candidates "
            "longer, set TICKLINE_STAGED_DAYS",
        )


def _require_promotable(manifest: Manifest, spec: PromotionSpec) -> None:
    if manifest.verdict not in ACCEPTED:
        raise PromotionError(
            f"version {manifest.version} failed its gate"
            if manifest.verdict == "fail"
            else f"version {manifest.version} was not accepted by its gate: {manifest.verdict}",
            remedy="nothing to do; the next nightly may pass",
        )
    if manifest.verdict == "not comparable" and spec.not_comparable is None:
        raise PromotionError(
            f"version {manifest.version} was not compared with the champion",
            remedy="read why in its gate/verdict.md; to promote it all the same, say why: "
            f"tickline promote --version {manifest.version} --not-comparable REASON",
        )
    allowed = manifest.simulated and spec.allow_simulated
    excused = manifest.verdict == "not comparable" and not manifest.simulated
    if not (manifest.promotable or allowed or excused):
        raise PromotionError(
            f"version {manifest.version} uses simulated data and is not promotable",
            remedy="use real ticks: tickline nightly --data PATH. "
            "For a rehearsal: tickline promote --allow-simulated",
        )
