"""Rollback: choose an earlier approved version, make it serve, record it."""

import datetime as dt

from prefect.runtime import flow_run

from model_code.errors import IntegrityError, PromotionError
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.repository.manifest import Manifest
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.client import TritonClient
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion.aliases import Aliases
from tasks.promotion.records import AUDIT_TAG


def choose_version(settings: Settings, to: int | None) -> tuple[int, int, int | None]:
    """Versions of a rollback: to which, from which, and whose the next one would be.

    Raises:
        PromotionError: nothing serves, nothing to go back to, or it was never approved.
    """
    repository, names = ServingRepository(settings.serving_repository), Aliases(settings)
    champion, previous = names.aliases()
    _repair_route(repository, champion)
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


def _repair_route(repository: ServingRepository, champion: int | None) -> None:
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
    repository, names = ServingRepository(settings.serving_repository), Aliases(settings)
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
    names = Aliases(settings)
    names.tag(version, {AUDIT_TAG: record.sha256})
    if champion != version:
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        names.tag(champion, {"rolled_back_at": at, "rolled_back_by": by, "rollback_reason": reason})
    return record
