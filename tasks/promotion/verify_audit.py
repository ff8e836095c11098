"""Compare the audit file, the signatures, MLflow's registry and the serving folders."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mlflow.tracking import MlflowClient

from model_code.errors import TicklineError
from model_code.repository.approved import (
    DECISIONS,
    decision_problem,
    exception_problem,
    require_approved,
)
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.repository.exceptions import CLOSED, RENEWED, TURNED
from model_code.repository.policy import PolicyFile, policy_path
from model_code.repository.serving import ServingRepository
from model_code.settings import MODEL_NAME, Settings
from tasks.promotion.record import APPROVED_TAG
from tasks.promotion.records import AUDIT_TAG
from tasks.runs import mlflow_runs
from tasks.runs.aliases import Aliases


class Difference(NamedTuple):
    """Two places that say different things, or one that is missing."""

    where: str
    what: str


class Verified(NamedTuple):
    """What was compared, and what differs.

    Attributes:
        records: number of audit records with an unbroken chain.
        signatures: number of decisions whose signature counts.
        versions: promoted versions that were compared.
        differences: between any two.
    """

    records: int
    signatures: int
    versions: tuple[int, ...]
    differences: tuple[Difference, ...]


def verify_audit(settings: Settings) -> Verified:
    """Compare chain, signatures, registry and folders; a missing file is a difference.

    Raises:
        RegistryDownError: MLflow does not answer.
        ConfigError: the policy is wrong, or ssh-keygen is not installed.
    """
    aliases, audit = Aliases(settings), AuditLog.of(settings)
    aliases.require_answer()
    policy = PolicyFile.find(settings.serving_repository)
    records, broken = audit.read_until_broken()
    found: list[Difference] = []
    if broken is not None:
        found.append(Difference(f"audit line {len(records) + 1}", broken.what))
    promoted = {
        int(str(record.facts["version"])): record
        for record in records
        if record.event == "promoted" and "version" in record.facts
    }
    tags = _registered(settings)
    served = ServingRepository(settings.serving_repository).known()
    marked = {version for version, its in tags.items() if its.keys() & {AUDIT_TAG, APPROVED_TAG}}
    if not audit.exists() and (served or marked):
        found.append(Difference("audit file", f"missing: {audit.path}"))
    if policy is None and any("policy_sha256" in record.facts for record in records):
        path = policy_path(settings.serving_repository)
        found.append(Difference("policy", f"missing: {path}"))
    signed, wrong = _signatures(records, policy)
    found += wrong
    found += _decided_before(records)
    if broken is None:  # otherwise each folder would only repeat the break
        found += _folders(settings, served, promoted, policy)
    for version in sorted(promoted.keys() | marked):
        found += _tags(version, tags.get(version), records, broken is None)
    found += _serving(settings, aliases, records)
    return Verified(len(records), signed, tuple(sorted(promoted)), tuple(found))


def _registered(settings: Settings) -> dict[int, Mapping[str, str]]:
    """The tags of every registered version."""
    mlflow: MlflowClient = mlflow_runs.client(settings)
    found: dict[int, Mapping[str, str]] = {}
    token: str | None = None
    while True:
        page = mlflow.search_model_versions(f"name = '{MODEL_NAME}'", page_token=token)
        found |= {int(one.version): dict(one.tags) for one in page}
        token = page.token
        if not token:
            return found


def _signatures(
    records: Sequence[AuditRecord], policy: PolicyFile | None
) -> tuple[int, list[Difference]]:
    signed, found = 0, []
    for record in records:
        if record.event in DECISIONS:
            wrong = decision_problem(record, records, None if policy is None else policy.policy)
        elif record.event in (RENEWED, CLOSED):
            wrong = exception_problem(record, None if policy is None else policy.policy)
        else:
            continue
        if wrong is not None:
            found.append(Difference(f"audit line {record.number}", wrong))
        elif record.facts.get("signature"):
            signed += 1
    return signed, found


def _decided_before(records: Sequence[AuditRecord]) -> Iterator[Difference]:
    """Each promotion must follow its own approval, of the same bytes."""
    approved = {
        record.facts.get("flow_run_id"): record for record in records if record.event == "approved"
    }
    same = {
        "version": "version", "approved_by": "reviewer", "engine_sha256": "engine_sha256",
        "config_sha256": "config_sha256", "policy_sha256": "policy_sha256",
    }  # fmt: skip
    for record in records:
        if record.event != "promoted":
            continue
        approval = approved.get(record.facts.get("flow_run_id"))
        if approval is None or approval.number > record.number:
            yield Difference(f"audit line {record.number}", "promoted without an approval")
            continue
        for name, other in same.items():
            if record.facts.get(name) != approval.facts.get(other):
                yield Difference(
                    f"audit line {record.number}",
                    f"another {name} than its approval, line {approval.number}",
                )


def _folders(
    settings: Settings,
    served: Sequence[int],
    promoted: Mapping[int, AuditRecord],
    policy: PolicyFile | None,
) -> Iterator[Difference]:
    """Each folder that served must have its approval; each promoted version its folder."""
    repository, audit = (
        ServingRepository(settings.serving_repository),
        AuditLog.of(settings),
    )
    for version in served:
        try:
            require_approved(repository, version, audit, policy)
        except TicklineError as error:
            yield Difference(f"folder of version {version}", error.what)
    for version in sorted(promoted.keys() - set(served)):
        yield Difference(f"folder of version {version}", f"missing in {repository.archive}")


def _tags(
    version: int, tags: Mapping[str, str] | None, records: Sequence[AuditRecord], whole: bool
) -> Iterator[Difference]:
    """A version's tags must be those of its newest records.

    Args:
        version: that was promoted, or whose tags say so.
        tags: None: the registry lacks it.
        records: of the audit file.
        whole: whether these are all; after a break newer ones may be missing.
    """
    where = f"MLflow version {version}"
    if tags is None:
        yield Difference(where, "missing in the registry")
        return
    own = [record for record in records if record.facts.get("version") == version]
    newest = [one for one in own if one.event in {"rejected", *TURNED}]
    promoted = [one for one in own if one.event == "promoted"]
    if not whole and (not newest or tags.get(AUDIT_TAG) not in {one.sha256 for one in newest}):
        return
    if not newest:
        yield Difference(where, f"tag {AUDIT_TAG} names a record that the audit file lacks")
        return
    if tags.get(AUDIT_TAG) != newest[-1].sha256:
        yield Difference(
            where,
            f"tag {AUDIT_TAG} is {tags.get(AUDIT_TAG, 'missing')[:12]}, line {newest[-1].number} "
            f"is {newest[-1].sha256[:12]}",
        )
    wanted: dict[str, str] = {}
    if promoted:
        facts = promoted[-1].facts
        wanted = {
            APPROVED_TAG: str(facts.get("approved_by")),
            "engine_sha256": str(facts.get("engine_sha256")),
        }
    elif APPROVED_TAG in tags:
        yield Difference(where, f"tag {APPROVED_TAG} of a version that was never promoted")
    for name, value in wanted.items():
        if tags.get(name) != value:
            yield Difference(
                where,
                f"tag {name} is {tags.get(name, 'missing')[:24]}, the audit file has {value[:24]}",
            )


def _serving(
    settings: Settings, aliases: Aliases, records: Sequence[AuditRecord]
) -> Iterator[Difference]:
    """Route, alias and the newest turn of the audit file must name one version."""
    champion, _ = aliases.aliases()
    try:
        route = ServingRepository(settings.serving_repository).route().champion
    except TicklineError as error:
        yield Difference("route", error.what)
        return
    turned = [record.facts.get("version") for record in records if record.event in TURNED]
    named = {
        "route": None if route is None else route.version,
        "alias champion": champion,
        "audit file": turned[-1] if turned else None,
    }
    if len(set(named.values())) > 1:
        said = ", ".join(f"{name} {version or 'none'}" for name, version in named.items())
        yield Difference("serving version", said)
