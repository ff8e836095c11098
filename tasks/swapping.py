"""The end of a promotion, and a rollback: swap, tags, audit."""

import datetime as dt
from contextlib import suppress
from pathlib import Path

from prefect.runtime import flow_run

from model_code.artifacts import hash_bytes
from model_code.errors import IntegrityError, PromotionError
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.repository.manifest import Approval, Manifest
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.serving.route import Route, Target
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, Settings
from tasks import tracking
from tasks.names import PREDECESSOR_TAG, Names
from tasks.promotion_results import Compared, Decided, Opened, Shown, Validated
from tasks.results import Record
from tasks.step import step

APPROVED_TAG = "approved_by"
AUDIT_TAG = "audit_sha256"


class RolledBack(Record):
    """How a rollback ended.

    Attributes:
        version: serves now.
        from_version: served before.
        previous: version the next rollback goes to; None where there is none.
        seconds: from the first check to the last alias.
    """

    version: int
    from_version: int
    previous: int | None
    seconds: float = 0.0


@step("decide")
def settle(settings: Settings, opened: Opened, shown: Shown, decided: Decided) -> Decided:
    """Write the decision to the audit file and the MLflow run; from now on it stands."""
    record = AuditLog(settings.audit_file).append(
        "approved" if decided.verdict == "approve" else "rejected",
        f"decided-{flow_run.id}",
        {
            "version": opened.version,
            "reviewer": decided.reviewer,
            "reason": decided.reason,
            "started_by": opened.started_by,
            "engine_sha256": shown.engine_sha256,
            "config_sha256": shown.config_sha256,
            "manifest": shown.identity,
            "flow_run_id": str(flow_run.id),
        },
    )
    tags = {
        "decision": decided.verdict,
        "reviewer": decided.reviewer or "nobody",
        "reason": decided.reason,
        AUDIT_TAG: record.sha256,
    }
    tracking.set_tags(tracking.client(settings), opened.mlflow_run_id, tags)
    if decided.verdict == "reject":
        Names(settings).tag(
            opened.version,
            {"rejected_by": tags["reviewer"], "reason": decided.reason, AUDIT_TAG: record.sha256},
        )
    return decided


@step("swap")
def swap(settings: Settings, url: str, opened: Opened, shown: Shown, decided: Decided) -> int:
    """Make the approved version the champion, in one transaction; its number.

    Raises:
        IntegrityError: bytes differ from what was approved.
        TicklineError: it did not come about; what served before serves.
    """
    repository, names = ServingRepository(settings.serving_repository), Names(settings)
    approval = Approval(
        reviewer=decided.reviewer,
        at=decided.at.isoformat(timespec="seconds"),
        reason=decided.reason,
        started_by=opened.started_by,
        flow_run_id=str(flow_run.id),
    )
    with TritonClient(url) as client:
        transaction = Swap(repository, client, names)
        fresh = opened.version not in repository.known()
        repository.publish(Path(opened.candidate), approval)
        try:
            _require_approved(repository, opened.version, shown)
            transaction.run("promote", opened.version, shown.champion, str(flow_run.id))
        except Exception:
            if fresh and repository.journal() is None:
                repository.withdraw(opened.version)
            raise
    return opened.version


def _require_approved(repository: ServingRepository, version: int, shown: Shown) -> None:
    """The copy that is about to serve is what was shown: the staging folder may have changed."""
    found = Manifest.load(repository.folder(version)).identity
    if found != shown.identity:
        raise PromotionError(
            f"version {version} is not what was approved: "
            f"shown {shown.identity[:12]}, copied {found[:12]}",
            where=str(repository.folder(version)),
            remedy="the approval is void; find out who changed the staging folder",
        )


@step("record")
def record_promotion(
    settings: Settings,
    url: str,
    opened: Opened,
    shown: Shown,
    decided: Decided,
    validated: Validated,
    compared: tuple[Compared, Compared],
) -> AuditRecord:
    """Write what happened to the audit file, the model version's tags and the MLflow run."""
    with TritonClient(url) as client:
        server = client.server()
    facts = {
        "version": opened.version,
        "previous": shown.champion,
        "approved_by": decided.reviewer,
        "reason": decided.reason,
        "started_by": opened.started_by,
        "engine": shown.engine,
        "engine_sha256": shown.engine_sha256,
        "config_sha256": shown.config_sha256,
        "triton_version": server,
        "flow_run_id": str(flow_run.id),
        "mlflow_run_id": opened.mlflow_run_id,
    }
    record = AuditLog(settings.audit_file).append("promoted", f"promoted-{flow_run.id}", facts)
    tags = {
        APPROVED_TAG: decided.reviewer,
        "approved_at": decided.at.isoformat(timespec="seconds"),
        "reason": decided.reason,
        "started_by": opened.started_by,
        "engine_sha256": shown.engine_sha256,
        "triton_version": server,
        "promotion_flow_run_id": str(flow_run.id),
        AUDIT_TAG: record.sha256,
        PREDECESSOR_TAG: "" if shown.champion is None else str(shown.champion),
    }
    Names(settings).tag(opened.version, tags)
    mlflow = tracking.client(settings)
    tracking.set_tags(mlflow, opened.mlflow_run_id, tags | {"outcome": "promoted"})
    steps = [step for part in compared for step in part.steps]
    metrics: dict[str, float | None] = {"replay_max_abs_dp": validated.largest}
    for loaded in validated.loads:
        at = f"c{loaded.concurrency}"
        metrics |= {f"p50_ms_{at}": loaded.p50_ms, f"p99_ms_{at}": loaded.p99_ms}
        metrics |= {f"throughput_{at}": loaded.throughput}
    if steps:
        metrics |= {"disagreement": max(seen.disagreement for seen in steps)}
        metrics |= {"candidate_errors": float(sum(seen.errors for seen in steps))}
    tracking.log_metrics(mlflow, opened.mlflow_run_id, metrics)
    mlflow.log_dict(
        opened.mlflow_run_id,
        {
            "validation": validated.model_dump(mode="json"),
            "shadow": compared[0].model_dump(mode="json"),
            "canary": compared[1].model_dump(mode="json"),
        },
        "promotion/proof.json",
    )
    return record


def stopped(settings: Settings, opened: Opened | None, version: int, error: BaseException) -> None:
    """Write down that a promotion did not come about, and why; never hides the error itself."""
    reason = str(error)[:500] or type(error).__name__
    facts = {
        "version": version,
        "kind": type(error).__name__,
        "reason": reason,
        "flow_run_id": str(flow_run.id),
    }
    key = f"stopped-{flow_run.id}-{hash_bytes(reason.encode())[:12]}"
    with suppress(Exception):
        AuditLog(settings.audit_file).append("stopped", key, facts)
    if opened is not None:
        with suppress(Exception):
            mlflow = tracking.client(settings)
            tracking.set_tags(
                mlflow, opened.mlflow_run_id, {"outcome": "stopped", "tickline.error": reason}
            )
            tracking.finish(mlflow, opened.mlflow_run_id, "FAILED")


def choose_version(settings: Settings, to: int | None) -> tuple[int, int, int | None]:
    """Versions of a rollback: to which, from which, and whose the next one would be.

    Raises:
        PromotionError: nothing serves, nothing to go back to, or it was never approved.
    """
    repository, names = ServingRepository(settings.serving_repository), Names(settings)
    champion, previous = names.aliases()
    _mend_route(repository, champion)
    journal, serving = repository.journal(), repository.route().champion
    if journal is not None and journal.kind == "rollback":
        # one that was killed is completed, not followed by a second
        champion, previous = journal.champion, journal.version
    elif journal is not None and serving is not None and serving.version != champion:
        # clients ask the version of a promotion that was killed; the names still say who was before
        champion, previous = serving.version, champion
    if champion is None:
        raise PromotionError("no version serves yet", remedy="tickline promote --version N")
    target = previous if to is None else to
    if target is None:
        raise PromotionError(
            f"version {champion} has no predecessor to go back to",
            where="alias previous in MLflow",
            remedy="name one: tickline rollback --to N, of those in tickline audit",
        )
    # the manifest knows it from the moment it may serve, the tags only once that is recorded
    if Manifest.load(repository.folder(target)).approval is None:
        raise PromotionError(
            f"version {target} was never approved, so it must not serve",
            remedy=f"tickline promote --version {target}",
        )
    before = names.predecessor(target)
    return target, champion, before if before in repository.known() else None


def _mend_route(repository: ServingRepository, champion: int | None) -> None:
    """Write a malformed route anew by the name in the registry; the swap proves what it names."""
    try:
        repository.route()
    except IntegrityError:
        if champion is None:
            raise
        Route(champion=Target(model=MODEL_NAME, version=champion)).save(repository.route_file)


def roll_back(settings: Settings, url: str, version: int, previous: int | None) -> bool:
    """Make an earlier version serve again; False where it does already.

    The caller holds the repository's lock since it chose the version.

    Raises:
        IntegrityError: its bytes are not those that were approved.
        TicklineError: it did not come about; what served before serves.
    """
    repository, names = ServingRepository(settings.serving_repository), Names(settings)
    with TritonClient(url) as client:
        transaction = Swap(repository, client, names)
        return transaction.run("rollback", version, previous, str(flow_run.id))


def record_rollback(
    settings: Settings, version: int, champion: int, by: str, reason: str
) -> AuditRecord:
    """Write a rollback to the audit file and the tags of both versions."""
    manifest = Manifest.load(ServingRepository(settings.serving_repository).folder(version))
    record = AuditLog(settings.audit_file).append(
        "rolled back",
        f"rolled-back-{flow_run.id}",
        {
            "version": version,
            "from": champion,
            "by": by,
            "reason": reason,
            "engine_sha256": manifest.engine_sha256,
            "flow_run_id": str(flow_run.id),
        },
    )
    names = Names(settings)
    names.tag(version, {AUDIT_TAG: record.sha256})
    if champion != version:
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        names.tag(champion, {"rolled_back_at": at, "rolled_back_by": by, "rollback_reason": reason})
    return record
