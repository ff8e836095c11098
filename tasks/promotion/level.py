"""Make an emergency rollback known: to the audit file, to MLflow's aliases and tags, to Prefect.

Every step can be repeated; one that finds nothing to do says nothing.
"""

from collections.abc import Sequence
from uuid import UUID

from prefect import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from model_code.errors import PromotionError, TicklineError
from model_code.repository.audit import AuditLog
from model_code.repository.fence import Emergency, complete
from model_code.repository.serving import ServingRepository
from model_code.settings import Settings
from tasks.promotion.emergency import record_emergency
from tasks.promotion.records import AUDIT_TAG
from tasks.runs.aliases import Aliases


def require_complete(repository: ServingRepository, emergencies: Sequence[Emergency]) -> None:
    """Check that the newest emergency ended and that the route still names its version.

    Raises:
        PromotionError: it was interrupted, or somebody changed the route since.
    """
    newest = emergencies[-1]
    if newest.state == "begun":
        raise PromotionError(
            f"an emergency rollback to version {newest.version} was interrupted",
            where=str(repository.fence.file(newest.number)),
            remedy=complete(newest.version),
        )
    champion = repository.route().champion
    if champion is None or champion.version != newest.version:
        now = "none" if champion is None else f"version {champion.version}"
        raise PromotionError(
            f"the newest emergency rollback went to version {newest.version}, "
            f"the route names {now}",
            where=str(repository.route_file),
            remedy="say which should serve: tickline rollback --emergency --to N --reason TEXT",
        )


def level_audit(settings: Settings, emergencies: Sequence[Emergency]) -> list[str]:
    """Write what the audit file lacks; return what was done.

    Raises:
        TicklineError: the file cannot be written, or its chain is broken.
    """
    known = {record.key for record in AuditLog.of(settings).read()}
    done = []
    for one in emergencies:
        record = record_emergency(settings, one)
        if isinstance(record, TicklineError):
            raise record
        if record.key not in known:
            done.append(f"audit file: record {record.number}, rolled back to {one.version}")
    return done


def level_registry(settings: Settings, emergencies: Sequence[Emergency]) -> list[str]:
    """Move MLflow's aliases to what serves and write the tags of a rollback; return what was done.

    Raises:
        RegistryDownError: MLflow does not answer.
    """
    aliases, newest = Aliases(settings), emergencies[-1]
    aliases.require_answer()
    done = []
    wanted, found = (newest.version, newest.previous), aliases.aliases()
    if found != wanted:
        aliases.move(*wanted)
        for name, old, new in zip(("champion", "previous"), found, wanted, strict=True):
            if old != new:
                done.append(f"MLflow: alias {name} {_text(old)} -> {_text(new)}")
    for one in emergencies:
        record = record_emergency(settings, one)
        if isinstance(record, TicklineError):
            raise record
        changes = {one.version: {AUDIT_TAG: record.sha256}}
        if one.before is not None and one.before != one.version:
            changes[one.before] = {
                "rolled_back_at": one.at,
                "rolled_back_by": one.by,
                "rollback_reason": one.reason,
            }
        for version, tags in changes.items():
            known = aliases.tags(version)
            if any(known.get(name) != value for name, value in tags.items()):
                aliases.tag(version, tags)
                done.append(f"MLflow: tags of version {version}")
    return done


def level_runs(emergencies: Sequence[Emergency]) -> list[str]:
    """Cancel the promotions that an emergency took over from; return what was done."""
    done = []
    with get_client(sync_client=True) as client:
        for run_id in sorted({one for found in emergencies for one in found.interrupted}):
            try:
                run = client.read_flow_run(UUID(run_id))
            except ObjectNotFound:
                continue
            if run.state is None or run.state.is_final():
                continue
            why = "an emergency rollback took over (tickline audit)"
            client.set_flow_run_state(run.id, Cancelled(message=why), force=True)
            done.append(f"Prefect: run {run.name} cancelled (was {run.state.name})")
    return done


def finish(repository: ServingRepository, emergencies: Sequence[Emergency]) -> None:
    """Note that everything knows these emergencies."""
    for one in emergencies:
        repository.fence.save(one.model_copy(update={"state": "level"}))


def _text(version: int | None) -> str:
    return "none" if version is None else str(version)
