"""The targets of promotions: note which have the serving version, bring the others level."""

import time
from typing import Any

from infra.triton.targets import serving_servers
from model_code.repository.audit import AuditLog
from model_code.repository.serving import ServingRepository
from model_code.repository.targets import TargetStates
from model_code.serving.levels import Level, compare, reconcile
from model_code.serving.servers import Servers
from model_code.settings import Settings
from model_code.settings.targets import below_majority


def note_targets(settings: Settings, repository: ServingRepository, servers: Servers) -> None:
    """Write which targets have the serving version; nothing with a single server."""
    if settings.targets:
        champion = repository.route().champion
        version = None if champion is None else champion.version
        TargetStates.save(repository.state, version, tuple(settings.targets), servers.behind)


def target_states(settings: Settings) -> TargetStates:
    """What the last promotion, rollback or `reconcile` found."""
    return TargetStates.load(ServingRepository(settings.serving_repository).state)


def target_line(settings: Settings) -> str:
    """The targets and the quorum, for the evidence; empty with a single server."""
    if not settings.targets:
        return ""
    count, needed = len(settings.targets), settings.needed_targets
    line = f"{', '.join(settings.targets)}; the route turns once {needed} of {count} have it"
    risk = below_majority(needed, count)
    return f"{line} ({risk})" if risk else line


def behind_now(settings: Settings) -> dict[str, str]:
    """Why targets do not have the serving version, by name; empty with a single server."""
    return target_states(settings).behind if settings.targets else {}


def target_facts(settings: Settings) -> dict[str, Any]:
    """The targets of a change for its audit record; empty with a single server."""
    if not settings.targets:
        return {}
    found = target_states(settings)
    return {
        "targets": list(found.level),
        "behind": found.behind,
        "quorum": settings.needed_targets,
    }


def compare_targets(settings: Settings) -> tuple[Level, ...]:
    """Compare every target with the route, and change nothing.

    Raises:
        ServerError: no server is configured or running.
    """
    repository = ServingRepository(settings.serving_repository)
    with serving_servers(settings, repository) as servers:
        return compare(repository, servers)


def reconcile_targets(settings: Settings, by: str) -> tuple[Level, ...]:
    """Bring every target level with the route; a change goes to the audit file.

    Args:
        settings: with the targets.
        by: who does it.

    Raises:
        RepositoryBusyError: a promotion or rollback is running.
        PromotionError: one was interrupted.
        IntegrityError: the champion's bytes differ from its manifest.
        ServerError: no server is configured or running.
    """
    repository = ServingRepository(settings.serving_repository)
    with repository.exclusive(), serving_servers(settings, repository) as servers:
        found = reconcile(repository, servers)
        servers.behind = {one.target: one.problem for one in found if not one.level}
        note_targets(settings, repository, servers)
        changed = {one.target: one.action for one in found if one.level and one.action}
        champion = repository.route().champion
        if changed and champion is not None:
            facts = {
                "version": champion.version,
                "by": by,
                "targets": changed,
                "behind": servers.behind,
            }
            AuditLog.of(settings).append("reconciled", f"reconciled-{time.time_ns()}", facts)
    return found
