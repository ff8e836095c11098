"""Whether a version was approved: its folder's approval against the audit file and the signature.

Only files are read, so that a rollback needs neither MLflow nor Prefect for it.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from model_code.errors import ConfigError, IntegrityError, PromotionError
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.repository.decisions import Subject, Word
from model_code.repository.exceptions import FACT, ApprovedException
from model_code.repository.manifest import Manifest
from model_code.repository.policy import Policy, PolicyFile, policy_path
from model_code.repository.serving import ServingRepository
from model_code.repository.signatures import signature_problem

# the word that was signed, by event
DECISIONS: Mapping[str, Word] = {"approved": "approve", "rejected": "reject"}
REMEDY = "find out who changed it (tickline audit --verify); go back to another version: --to N"


def require_approved(
    repository: ServingRepository, version: int, audit: AuditLog, policy: PolicyFile | None
) -> AuditRecord:
    """Verify that a version's folder is what was approved; return the approval's record.

    Args:
        repository: has the folder.
        version: that should serve.
        audit: has the approval.
        policy: has the keys of the signatures; None: the repository has none.

    Raises:
        PromotionError: the version has no approval, or the audit file does not have it.
        IntegrityError: bytes, approval, audit file or signature do not fit each other.
        ConfigError: decisions were made under a policy, and there is none any more.
    """
    folder = repository.folder(version)
    manifest, records = Manifest.load(folder), audit.read()
    if policy is None and any("policy_sha256" in record.facts for record in records):
        raise ConfigError(
            "the policy is missing under which versions were approved: nothing can be verified",
            where=str(policy_path(repository.root)),
            remedy="put it back; to see its hash: tickline audit --json",
        )
    record = approval_of(manifest, records)
    if manifest.approval is None or record is None:
        missing = "the audit file is missing" if not audit.exists() else "it has no record"
        raise PromotionError(
            f"version {version} was never approved, so it must not serve"
            if manifest.approval is None
            else f"the approval of version {version} is not in the audit file: {missing}",
            where=str(folder if manifest.approval is None else audit.path),
            remedy=f"tickline promote --version {version}" if manifest.approval is None else REMEDY,
        )
    differing = differences(manifest, record)
    wrong = (
        f"its folder and the audit file have another {', '.join(differing)}"
        if differing
        else decision_problem(record, records, None if policy is None else policy.policy)
    )
    if wrong:
        raise IntegrityError(
            f"the approval of version {version} does not count: {wrong}",
            where=f"{folder}; {audit.path}, record {record.number}",
            remedy=REMEDY,
        )
    return record


def approval_of(manifest: Manifest, records: Sequence[AuditRecord]) -> AuditRecord | None:
    """The record of a manifest's approval; None if there is none."""
    if manifest.approval is None:
        return None
    for record in reversed(records):
        facts = record.facts
        if (
            record.event == "approved"
            and facts.get("version") == manifest.version
            and facts.get("flow_run_id") == manifest.approval.flow_run_id
        ):
            return record
    return None


def differences(manifest: Manifest, record: AuditRecord) -> list[str]:
    """What an approved folder's manifest and the approval's record say otherwise."""
    approval = manifest.approval
    if approval is None:
        return ["approval"]
    found: dict[str, Any] = {
        "manifest": manifest.identity,
        "engine_sha256": manifest.engine_sha256,
        "config_sha256": manifest.config_sha256,
        "reviewer": approval.reviewer,
        "reason": approval.reason,
        "started_by": approval.started_by,
        "policy_sha256": approval.policy_sha256,
        "signature": approval.signature,
    }
    # records of earlier versions lack the last two; an approval without them has empty ones
    return [name for name, value in found.items() if record.facts.get(name, "") != value]


def decision_problem(
    record: AuditRecord, records: Sequence[AuditRecord], policy: Policy | None
) -> str | None:
    """Return why a record of a decision does not count as signed; None if it does.

    Without a signature it counts if signatures were optional then, or if it is older than the
    first record that names a policy: earlier versions had neither.

    Args:
        record: `approved` or `rejected`.
        records: of the whole audit file.
        policy: that applies now; None: there is none.
    """
    facts = record.facts
    if not facts.get("signature"):
        return None if _counts_unsigned(record, records) else "it is not signed"
    if policy is None:
        return "there is no policy with the reviewers' keys"
    reviewer, signed = str(facts.get("reviewer")), str(facts.get("signed"))
    try:
        names = Subject.model_fields.keys()
        subject = Subject.model_validate({name: facts[name] for name in names if name in facts})
        exception = facts.get(FACT)
        more = exception if isinstance(exception, dict) else {}
        owner, expires = str(more.get("owner", "")), str(more.get("expires", ""))
        word = DECISIONS[record.event]
        text = subject.text(word, reviewer, str(facts.get("reason")), owner, expires)
    except (ValidationError, KeyError):
        return "the record lacks what was signed"
    if text != signed:
        return f"another text was signed: {other_line(text, signed)}"
    at = dt.datetime.fromisoformat(record.at)
    return signature_problem(policy, reviewer, signed, str(facts["signature"]), at)


def exception_problem(record: AuditRecord, policy: Policy | None) -> str | None:
    """Return why a renewed or closed exception does not count as signed; None if it does.

    Args:
        record: `exception renewed` or `exception closed`.
        policy: that applies now; None: there is none.
    """
    facts = record.facts
    if not facts.get("signature"):
        return None if facts.get("signatures") == "optional" else "it is not signed"
    if policy is None:
        return "there is no policy with the reviewers' keys"
    found, reviewer, signed = facts.get(FACT), str(facts.get("reviewer")), str(facts.get("signed"))
    if not isinstance(found, dict):
        return "the record lacks what was signed"
    try:
        exception = ApprovedException.model_validate({"version": facts["version"], **found})
    except (ValidationError, KeyError):
        return "the record lacks what was signed"
    asked = (str(facts.get("reason")), str(facts.get("policy_sha256")))
    text = exception.text(record.event, reviewer, *asked)
    if text != signed:
        return f"another text was signed: {other_line(text, signed)}"
    at = dt.datetime.fromisoformat(record.at)
    return signature_problem(policy, reviewer, signed, str(facts["signature"]), at)


def _counts_unsigned(record: AuditRecord, records: Sequence[AuditRecord]) -> bool:
    if record.facts.get("reviewer") == "":  # nobody decided in time
        return True
    if "policy_sha256" in record.facts:
        return record.facts.get("signatures") == "optional"
    return not any("policy_sha256" in one.facts for one in records[: record.number])


def other_line(wanted: str, found: str) -> str:
    """The first line of a signed text that is not as it must be."""
    pairs = zip(wanted.splitlines(), [*found.splitlines(), ""], strict=False)
    for one, other in pairs:
        if one != other:
            return f"{other or 'nothing'!r} instead of {one!r}"
    return "it is longer"
