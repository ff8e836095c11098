"""Rollback: choose an earlier approved version, put it back into service, record it."""

import datetime as dt
from contextlib import suppress

from prefect.runtime import flow_run

from infra.triton.targets import serving_servers
from model_code.errors import IntegrityError, PromotionError
from model_code.repository.approved import require_approved
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.repository.manifest import Manifest
from model_code.repository.policy import PolicyFile
from model_code.repository.route import Route, Target
from model_code.repository.serving import ServingRepository
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion.records import AUDIT_TAG
from tasks.promotion.swap import share
from tasks.promotion.targets import note_targets, target_facts
from tasks.runs.aliases import Aliases
from tasks.runs.serving_version import last_recorded, serving_version


def choose_version(settings: Settings, to: int | None) -> tuple[int, int, int | None]:
    """Choose a rollback's target; return target, serving version, and the next one's target.

    Raises:
        PromotionError: no version serves, there is no predecessor, or the target was never
            approved.
        IntegrityError: the target's bytes, approval, audit record or signature do not fit.
    """
    repository, aliases = ServingRepository(settings.serving_repository), Aliases(settings)
    _repair_route(settings, repository, aliases)
    found, journal = serving_version(settings), repository.journal()
    champion, previous = found.version, found.previous
    if journal is not None and journal.kind == "rollback":
        # complete an interrupted rollback instead of starting a second one
        champion, previous = journal.champion, journal.version
    elif journal is not None and champion == journal.version:
        # interrupted promotion: clients already use its version, the aliases may not have moved yet
        previous = journal.champion
    if champion is None:
        raise PromotionError("no version serves yet", remedy="tickline promote --version N")
    target = previous if to is None else to
    if target is None:
        raise PromotionError(
            f"version {champion} has no predecessor to go back to",
            where="alias previous in MLflow",
            remedy="choose a version from tickline audit: tickline rollback --to N",
        )
    policy = PolicyFile.find(settings.serving_repository)
    require_approved(repository, target, AuditLog.of(settings), policy)
    before = aliases.predecessor(target)
    return target, champion, before if before in repository.known() else None


def _repair_route(settings: Settings, repository: ServingRepository, aliases: Aliases) -> None:
    """Rewrite a malformed route by the audit file, else MLflow; the swap verifies that version."""
    try:
        repository.route()
    except IntegrityError:
        champion = None
        with suppress(IntegrityError):
            champion = last_recorded(settings)
        champion = aliases.aliases()[0] if champion is None else champion
        if champion is None:
            raise
        repository.turn(Route(champion=Target(model=MODEL_NAME, version=champion)))


def roll_back(settings: Settings, version: int, previous: int | None, epoch: int) -> bool:
    """Put an earlier version back into service; False if it is already serving.

    Of several targets one is enough: a bad version must not serve until all of them answer. The
    caller must hold the repository's lock since it chose the version.

    Args:
        settings: of this home.
        version: to serve.
        previous: that the next rollback goes to.
        epoch: number of the newest emergency rollback when this one began.

    Raises:
        IntegrityError: the version's bytes are not the approved ones.
        FencedError: an emergency rollback took over; nothing is undone.
        TicklineError: the rollback failed; the previous version is restored.
    """
    repository = ServingRepository(settings.serving_repository, epoch)
    with serving_servers(settings, repository) as servers:
        transaction = Swap(repository, servers, Aliases(settings))
        try:
            changed = transaction.run("rollback", version, previous, str(flow_run.id))
        finally:
            if repository.fence.is_current:
                note_targets(settings, repository, servers)
    share(settings)
    return changed


def record_rollback(
    settings: Settings, version: int, champion: int, by: str, reason: str
) -> AuditRecord:
    """Write a rollback to the audit file and the tags of both versions."""
    manifest = Manifest.load(ServingRepository(settings.serving_repository).folder(version))
    facts = {
        "version": version,
        "from": champion,
        "by": by,
        "reason": reason,
        "engine_sha256": manifest.engine_sha256,
        "flow_run_id": str(flow_run.id),
    }
    record = AuditLog.of(settings).append(
        "rolled back", f"rolled-back-{flow_run.id}", facts | target_facts(settings)
    )
    aliases = Aliases(settings)
    aliases.tag(version, {AUDIT_TAG: record.sha256})
    if champion != version:
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        tags = {"rolled_back_at": at, "rolled_back_by": by, "rollback_reason": reason}
        aliases.tag(champion, tags)
    return record
