"""Emergency rollback: an earlier approved version serves again, with nothing but Triton and files.

It asks neither Prefect nor MLflow, and does not wait for the lock of promotions: it fences off the
promotion that holds it. `tickline reconcile` makes the change known to both afterwards. This module
imports neither of them: it must work where they do not.
"""

import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.triton.targets import of_policy, serving_servers
from model_code.errors import (
    IntegrityError,
    PromotionError,
    ServingError,
    SharedStoreError,
    TicklineError,
)
from model_code.repository.approved import require_approved
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.repository.fence import EMERGENCY, LOCK, Emergency, FencedError, RouteHeldError
from model_code.repository.lease import owners
from model_code.repository.manifest import Manifest
from model_code.repository.policy import PolicyFile
from model_code.repository.route import Route, Target
from model_code.repository.serving import Journal, RepositoryBusyError, ServingRepository
from model_code.serving.candidate import CANDIDATE_NAME
from model_code.serving.servers import Server
from model_code.serving.swap import Swap
from model_code.settings import MODEL_NAME, Settings
from model_code.storage.serving import refuse_elsewhere
from tasks.promotion.targets import note_targets

WAIT_S = 5.0  # for a write of the route or of the audit file, and for the shared store


@dataclass(frozen=True)
class EmergencyDone:
    """How an emergency rollback ended.

    Attributes:
        emergency: its record.
        seconds: until the version served.
        notes: what else it did and found, one line each.
        record: file that has the record.
    """

    emergency: Emergency
    seconds: float
    notes: tuple[str, ...]
    record: Path


@dataclass(frozen=True)
class Choice:
    """What an emergency rollback does.

    Attributes:
        version: to serve.
        before: that clients use now; None if none.
        previous: that the next rollback goes to; None if there is none.
        why: why this version.
    """

    version: int
    before: int | None
    previous: int | None
    why: str


def emergency_rollback(settings: Settings, to: int | None, by: str, reason: str) -> EmergencyDone:
    """Take over from a running change and put an earlier approved version back into service.

    Of several targets one is enough. A version that does not answer its golden requests gets no
    request; the one before it keeps them.

    Args:
        settings: of this home.
        to: version; None for the one before the newest change.
        by: who does it.
        reason: why.

    Raises:
        ConfigError: the policy is wrong, or the settings name another server.
        PromotionError: there is no such version, it was never approved, or it does not serve.
        IntegrityError: its bytes, approval, audit record or signature do not fit.
        ServingError: no server answers.
        RouteHeldError: a process of another machine holds the lock of the route.
    """
    began, notes = time.monotonic(), list[str]()
    policy = PolicyFile.find(settings.serving_repository)
    settings = settings if policy is None else of_policy(settings, policy)
    repository = ServingRepository(settings.serving_repository)
    if not repository.known():
        with suppress(SharedStoreError):
            refuse_elsewhere(settings, WAIT_S)
    audit, records = _audit(settings, notes)
    route, journal = _route(repository, records, notes), _journal(repository, notes)
    choice = choose(repository.known(), route, journal, records, to)
    notes.append(choice.why)
    if choice.version != choice.before:
        require_approved(repository, choice.version, audit, policy)
    with ExitStack() as stack:
        servers = stack.enter_context(serving_servers(settings, repository))
        servers.quorum = 1
        servers.each(_require_live, 1)
        away = dict(servers.behind)
        try:
            stack.enter_context(repository.exclusive())
        except RepositoryBusyError as error:
            notes.append(f"it did not wait: {error.what}")
        interrupted = _interrupted(repository, journal)
        emergency = _begin(repository, choice, by, reason, interrupted, notes)
        place = ServingRepository(repository.root, emergency.number)
        place.turn(Route(champion=route.champion))  # ends a canary at once
        if route.shared():
            notes.append(f"the canary of version {_version(route.candidate)} was stopped")
        try:
            Swap(place, servers, _Names(choice)).run(EMERGENCY, choice.version, None, "")
        except Exception as error:
            place.fence.save(emergency.model_copy(update={"state": "failed"}))
            if isinstance(error, FencedError):  # a second emergency
                raise
            raise _failed(repository, choice, error) from error
        note_targets(settings, place, servers)
        seconds = time.monotonic() - began
        behind = away | servers.behind
        emergency = emergency.model_copy(update={"state": "serving", "behind": behind})
        place.fence.save(emergency)
        with suppress(TicklineError):
            servers.each(_unload_candidate, 1)
    record = record_emergency(settings, emergency, WAIT_S)
    if isinstance(record, AuditRecord):
        return EmergencyDone(emergency, seconds, tuple(notes), settings.audit_file)
    notes.append(f"the audit file could not be written: {record.what}")
    return EmergencyDone(emergency, seconds, tuple(notes), place.fence.file(emergency.number))


def choose(
    known: Sequence[int],
    route: Route,
    journal: Journal | None,
    records: Sequence[AuditRecord],
    to: int | None,
) -> Choice:
    """Choose the version of an emergency rollback from local files.

    Without `to` it is the version before the newest change: a swap or canary in progress counts as
    the newest.

    Args:
        known: versions that ever served.
        route: that clients follow.
        journal: of a change in progress.
        records: of the audit file.
        to: the version asked for.

    Raises:
        PromotionError: nothing serves, or no earlier version is known.
    """
    before = _version(route.champion)
    asked = to
    if to is not None:
        why = f"version {to} was asked for"
    elif journal is not None and journal.kind == "promote":
        asked = _version(journal.route.champion)
        why = f"version {asked} served before the promotion of version {journal.version}"
    elif journal is not None:
        asked, why = journal.version, f"a rollback to version {journal.version} was not complete"
    elif route.shared() and before is not None:
        asked, why = before, f"version {before} serves; version {_version(route.candidate)} is in "
        why += "its canary. To go back further: --to N"
    else:
        asked = None if before is None else _earlier(records, before)
        why = f"version {asked} served before version {before}, by the audit file"
    if asked is None:
        raise PromotionError(
            "no version serves yet" if before is None else f"no version before {before} is known",
            where="route, journal and audit file",
            remedy=f"name it: tickline rollback --emergency --to N; known: {_text(known)}"
            if known
            else "tickline promote --version N",
        )
    if asked not in known:
        raise PromotionError(
            f"version {asked} was never promoted",
            where="serving repository and its archive",
            remedy=f"choose one of {_text(known)}: tickline rollback --emergency --to N",
        )
    previous = _replaced(records, asked)
    return Choice(asked, before, previous if previous in known else None, why)


def record_emergency(
    settings: Settings, emergency: Emergency, wait_s: float = -1
) -> AuditRecord | TicklineError:
    """Write an emergency to the audit file, once; return why if it cannot be written."""
    repository = ServingRepository(settings.serving_repository)
    try:
        manifest = Manifest.load(repository.folder(emergency.version))
        facts: dict[str, Any] = {
            "version": emergency.version,
            "from": emergency.before,
            "by": emergency.by,
            "reason": emergency.reason,
            "engine_sha256": manifest.engine_sha256,
            "emergency": emergency.number,
            "done_at": emergency.at,
            "interrupted": list(emergency.interrupted),
        }
        if settings.targets:
            facts |= {"behind": emergency.behind}
        key = f"emergency-{emergency.number}-{emergency.at}"
        return AuditLog.of(settings, wait_s).append("rolled back", key, facts)
    except TicklineError as error:
        return error


class _Names:
    """The aliases as far as files know them; MLflow gets them from `tickline reconcile`."""

    def __init__(self, choice: Choice) -> None:
        self._champion = choice.before

    def aliases(self) -> tuple[int | None, int | None]:
        return self._champion, None

    def move(self, champion: int | None, previous: int | None) -> None:
        pass


def _audit(settings: Settings, notes: list[str]) -> tuple[AuditLog, list[AuditRecord]]:
    """The audit chain and its records: this home's copy if the shared store does not answer."""
    audit = AuditLog.of(settings, WAIT_S)
    try:
        try:
            return audit, audit.read()
        except SharedStoreError as error:
            notes.append(f"{error.what}: it used {settings.audit_file}")
            audit = AuditLog(settings.audit_file)
            return audit, audit.read()
    except IntegrityError as error:
        notes.append(f"{error.what} ({error.where})")
        return audit, []


def _route(
    repository: ServingRepository, records: Sequence[AuditRecord], notes: list[str]
) -> Route:
    """The route; if its file is malformed, the champion of the audit file."""
    try:
        return repository.route()
    except IntegrityError as error:
        notes.append(f"{error.what}: it was written again")
    served = [one.facts["version"] for one in records if one.event in {"promoted", "rolled back"}]
    champion = next((one for one in reversed(served) if isinstance(one, int)), None)
    return Route(champion=None if champion is None else Target(model=MODEL_NAME, version=champion))


def _journal(repository: ServingRepository, notes: list[str]) -> Journal | None:
    """The journal of a change in progress; a malformed one is moved aside."""
    try:
        return repository.journal()
    except IntegrityError as error:
        aside = repository.journal_file.with_suffix(".malformed")
        repository.journal_file.replace(aside)
        notes.append(f"{error.what}: it was moved to {aside.name}")
        return None


def _replaced(records: Sequence[AuditRecord], version: int) -> int | None:
    """The version that another one replaced, by the record of its promotion."""
    for one in reversed(records):
        if one.event == "promoted" and one.facts["version"] == version:
            found = one.facts.get("previous")
            return found if isinstance(found, int) and found != version else None
    return None


def _earlier(records: Sequence[AuditRecord], serving: int) -> int | None:
    """The version that served before the one that serves now.

    A promotion killed before its record serves without one: it replaced the last recorded version.
    """
    served = [one for one in records if one.event in {"promoted", "rolled back"}]
    if any(one.facts["version"] == serving for one in served):
        return _replaced(records, serving)
    last = served[-1].facts["version"] if served else None
    return last if isinstance(last, int) else None


def _require_live(server: Server) -> None:
    if not server.client.live():
        raise ServingError(
            "the Triton server does not answer",
            where=server.client.url,
            remedy="start it: tickline triton up, then run the same command again",
        )


def _interrupted(repository: ServingRepository, journal: Journal | None) -> tuple[str, ...]:
    """Flow runs of promotions and rollbacks that an emergency takes over from."""
    found = [one.flow_run_id for one in owners(repository.state)]
    if journal is not None:
        found.append(journal.flow_run_id)
    return tuple(sorted({one for one in found if one}))


def _begin(
    repository: ServingRepository,
    choice: Choice,
    by: str,
    reason: str,
    interrupted: tuple[str, ...],
    notes: list[str],
) -> Emergency:
    """Fence off every other change; end a process that keeps the lock of the route."""
    facts = (choice.version, choice.before, choice.previous, by, reason, interrupted)
    try:
        return repository.fence.begin(*facts, wait_s=WAIT_S)
    except RouteHeldError:
        holder = _holder(repository.state / LOCK)
        if holder is None:
            raise
        os.kill(holder, signal.SIGKILL)
        notes.append(f"process {holder} kept the lock of the route for {WAIT_S:g} s and was killed")
    return repository.fence.begin(*facts)


def _holder(lock: Path) -> int | None:
    """The process of this machine that holds a lock file; None if the system does not say."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
        wanted = str(lock.stat().st_ino)
    except OSError:
        return None
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 4711 08:02:123456 0 EOF
        fields = line.split()
        if fields[1] == "->":  # it waits
            continue
        pid, inode = int(fields[4]), fields[5].rpartition(":")[2]
        if inode == wanted and pid > 0:
            return pid
    return None


def _failed(repository: ServingRepository, choice: Choice, error: Exception) -> PromotionError:
    others = [one for one in repository.known() if one != choice.version]
    serving = "no version" if choice.before is None else f"version {choice.before}"
    return PromotionError(
        f"version {choice.version} cannot serve, {serving} keeps the requests: {error}",
        where=str(repository.root),
        remedy=f"try another: tickline rollback --emergency --to N; known: {_text(others)}",
    )


def _unload_candidate(server: Server) -> None:
    if server.client.ready(CANDIDATE_NAME):
        server.client.unload(CANDIDATE_NAME)


def _version(target: Target | None) -> int | None:
    return None if target is None else target.version


def _text(versions: Iterable[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
