"""The exception with which the serving version was approved: show it, renew it, close it."""

import datetime as dt
import time
from collections.abc import Callable

from model_code.errors import PromotionError
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.repository.exceptions import (
    CLOSED,
    RENEWED,
    ApprovedException,
    problem,
    serving_exception,
)
from model_code.repository.policy import PolicyFile
from model_code.repository.signatures import signature_problem
from model_code.settings import Settings
from model_code.storage.serving import follow_serving

Sign = Callable[[str], str]  # text to signature


def serving(settings: Settings) -> ApprovedException | None:
    """The exception of the serving version; None if it has none.

    Raises:
        IntegrityError: the audit file is broken.
    """
    return serving_exception(AuditLog.of(settings).read())


def exception_line(settings: Settings) -> str:
    """The exception of the serving version in words; empty if it has none."""
    found = serving(settings)
    return found.line(today()) if found else ""


def today() -> dt.date:
    """The date by which exceptions end, UTC."""
    return dt.datetime.now(dt.UTC).date()


def require_none_lapsed(settings: Settings) -> None:
    """Refuse a promotion while the serving version's exception has lapsed.

    Raises:
        PromotionError: it has.
    """
    found = serving(settings)
    if found and found.lapsed(today()):
        raise PromotionError(
            f"the exception of the serving version has lapsed: {found.line(today())}",
            where=str(settings.audit_file),
            remedy=f"tickline exceptions renew {found.version} --expires DATE, or tickline "
            f"exceptions close {found.version}; then promote again",
        )


def renew(
    settings: Settings,
    version: int,
    *,
    owner: str,
    expires: str,
    reviewer: str,
    reason: str,
    sign: Sign | None = None,
) -> ApprovedException:
    """Let the exception of the serving version hold longer, or name another owner.

    Args:
        settings: name the audit file and the policy.
        version: that serves.
        owner: empty for the same.
        expires: the new last day, ISO 8601.
        reviewer: who decides, as in the policy.
        reason: why.
        sign: signs a text; None: the decision is not signed.

    Raises:
        PromotionError: the version has no exception, or the decision does not count.
    """
    found, policy = _decided_by(settings, version, reviewer, reason)
    owner = owner.strip() or found.owner
    wrong = problem(found.reasons, owner, expires, today(), policy.policy.exception_days)
    if wrong:
        raise PromotionError(wrong, where=f"version {version}", remedy="nothing was changed")
    renewed = found.model_copy(
        update={"owner": owner, "expires": dt.date.fromisoformat(expires.strip())}
    )
    _append(settings, RENEWED, renewed, policy, reviewer.strip(), reason.strip(), sign)
    return renewed


def close(
    settings: Settings, version: int, *, reviewer: str, reason: str, sign: Sign | None = None
) -> ApprovedException:
    """Close the exception of the serving version: its cause no longer exists.

    Raises:
        PromotionError: the version has no exception, or the decision does not count.
    """
    found, policy = _decided_by(settings, version, reviewer, reason)
    _append(settings, CLOSED, found, policy, reviewer.strip(), reason.strip(), sign)
    return found


def _decided_by(
    settings: Settings, version: int, reviewer: str, reason: str
) -> tuple[ApprovedException, PolicyFile]:
    follow_serving(settings)  # the policy that counts is the serving host's
    found, policy = serving(settings), PolicyFile.load(settings.serving_repository)
    if found is None or found.version != version:
        raise PromotionError(
            f"the serving version is not {version}, or it has no exception",
            where=str(settings.audit_file),
            remedy="tickline exceptions shows the one that counts",
        )
    if reviewer.strip() not in policy.policy.reviewers:
        raise PromotionError(
            f"reviewer {reviewer.strip()!r} is not one of the policy's",
            where=str(policy.path),
            remedy=f"ask one of {', '.join(policy.policy.reviewers)}",
        )
    if not reason.strip():
        raise PromotionError("a reason is required", remedy="give one: --reason TEXT")
    return found, policy


def _append(
    settings: Settings,
    event: str,
    exception: ApprovedException,
    policy: PolicyFile,
    reviewer: str,
    reason: str,
    sign: Sign | None,
) -> AuditRecord:
    facts = {
        "version": exception.version,
        "reviewer": reviewer,
        "reason": reason,
        "policy_sha256": policy.sha256,
        "signatures": policy.policy.signatures,
    }
    if sign is not None:
        text = exception.text(event, reviewer, reason, policy.sha256)
        signature = sign(text)
        now = dt.datetime.now(dt.UTC)
        wrong = signature_problem(policy.policy, reviewer, text, signature, now)
        if wrong:
            raise PromotionError(wrong, where=str(policy.path), remedy="nothing was changed")
        facts |= {"signed": text, "signature": signature}
    elif policy.policy.signatures == "required":
        raise PromotionError(
            "the policy requires a signature",
            where=str(policy.path),
            remedy="the same command with --key and your SSH key; nothing was changed",
        )
    key = f"{event.replace(' ', '-')}-{exception.version}-{time.time_ns()}"
    return AuditLog.of(settings).append(event, key, facts | exception.facts())
