"""Step `decide`: the approval form, the approval rules, and the final decision."""

import datetime as dt
import re
from contextlib import suppress
from typing import Any, ClassVar, Literal

from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from infra.leases.lease import require_held
from model_code.repository import exceptions
from model_code.repository.approved import other_line
from model_code.repository.audit import AuditLog
from model_code.repository.decisions import Subject
from model_code.repository.policy import Policy, PolicyFile
from model_code.repository.serving import ServingRepository
from model_code.repository.signatures import signature_problem
from model_code.settings import Settings
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.records import AUDIT_TAG, Decided, Opened, Shown
from tasks.runs import mlflow_runs
from tasks.runs.aliases import Aliases


class Decision(RunInput):
    """Input from the form in Prefect's page or from `tickline approve|reject`.

    The form has no field for a signature: only the command can sign. It has one field for the
    exception. Each field and description less leaves more room for the text above them.
    """

    hidden: ClassVar[tuple[str, ...]] = ("owner", "expires", "signed", "signature")
    reviewers: ClassVar[tuple[str, ...]] = ()  # that the form offers; none: any text

    verdict: Literal["approve", "reject"]
    reviewer: str
    reason: str = Field(title="Reason (stored with the model)", json_schema_extra={"minLength": 1})
    exception: str = Field(
        default="", description="to approve: its owner and last day, as in grace 2027-01-31"
    )
    owner: str = ""
    expires: str = ""
    signed: str = ""
    signature: str = ""

    @model_validator(mode="before")
    @classmethod
    def _split_exception(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The form's one field as the two of the command."""
        text = str(values.get("exception", "")).strip()
        if not text or values.get("owner") or values.get("expires"):
            return values
        *names, day = re.split(r"[\s,;]+", text)
        return {**values, "owner": " ".join(names).removesuffix(" until"), "expires": day}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The form's fields."""
        schema = handler(core_schema)
        form = handler.resolve_ref_schema(schema)
        for name in cls.hidden:
            form["properties"].pop(name, None)
        if cls.reviewers:
            form["properties"]["reviewer"]["enum"] = list(cls.reviewers)
        form["additionalProperties"] = True  # Prefect's server must let the command's fields in
        return schema


def form_of(reviewers: tuple[str, ...], *, exception: bool) -> type[Decision]:
    """The form of one promotion.

    Args:
        reviewers: the policy's; the form offers these names, and Prefect's server accepts no other.
        exception: whether an approval is one.
    """
    hidden = Decision.hidden if exception else (*Decision.hidden, "exception")
    return type("Decision", (Decision,), {"hidden": hidden, "reviewers": reviewers})


def form_text(
    version: int, shown: Shown, signatures: Literal["required", "optional"], wrong: str | None
) -> str:
    """The form's text as Markdown: what was wrong, what is decided, how to sign, the hashes.

    Args:
        version: to promote.
        shown: the evidence.
        signatures: whether the policy requires them.
        wrong: why the last input did not count; None: there was none.
    """
    sign = f"`{sign_command(version)}` (or `tickline reject`)"
    if signatures == "required":
        first, sign = "**This form alone does not count: sign, see below.**", f"To sign: {sign}."
    else:
        first, sign = "", f"A decision in this form is recorded as unsigned. To sign it: {sign}."
    hashes = {
        "manifest": shown.identity,
        "engine": shown.engine_sha256,
        "configuration": shown.config_sha256,
        "policy": shown.policy_sha256,
    }
    parts = (
        f"**The last input was not valid: {wrong}.**" if wrong else "",
        first,
        shown.summary,
        sign,
        "sha256: " + ", ".join(f"{name} `{sha256}`" for name, sha256 in hashes.items()),
    )
    return "\n\n".join(part for part in parts if part)


def sign_command(version: int, word: str = "approve") -> str:
    """The command that signs a decision."""
    return f"tickline {word} {version} --reviewer NAME --reason TEXT --key ~/.ssh/id_ed25519"


def problem(decision: Decision, subject: Subject, found: PolicyFile) -> str | None:
    """Return why a decision is not valid; None if it is.

    Args:
        decision: from the form or the command.
        subject: what it is about.
        found: the policy.
    """
    policy, reviewer = found.policy, decision.reviewer.strip()
    if reviewer not in policy.reviewers:
        allowed = ", ".join(policy.reviewers)
        return f"reviewer {reviewer!r} is not one of the policy's ({allowed}; {found.path})"
    if not decision.reason.strip():
        return "a reason is required"
    if decision.verdict == "approve" and subject.policy_sha256 != found.sha256:
        return (
            f"the policy {found.path} was changed after the evidence was shown: "
            "reject this promotion and start it again"
        )
    if decision.verdict == "approve" and policy.four_eyes:
        own = {
            "this promotion": subject.started_by,
            f"the night of version {subject.version}": subject.night_by,
        }
        for what, by in own.items():
            if reviewer.casefold() in {name.strip().casefold() for name in by.split(",")}:
                return f"{reviewer} started {what}: another reviewer must approve it"
    if decision.verdict == "approve":
        today = dt.datetime.now(dt.UTC).date()
        wrong = exceptions.problem(
            subject.exceptions, decision.owner, decision.expires, today, policy.exception_days
        )
        if wrong:
            return wrong
    return _unsigned(decision, subject, policy)


def text_of(decision: Decision, subject: Subject) -> str:
    """The text that the decision's reviewer signs."""
    expires = decision.expires.strip()
    with suppress(ValueError):  # the decision does not count then
        expires = dt.date.fromisoformat(expires).isoformat()  # as the record has it
    return subject.text(
        decision.verdict,
        decision.reviewer.strip(),
        decision.reason.strip(),
        decision.owner.strip(),
        expires,
    )


def _unsigned(decision: Decision, subject: Subject, policy: Policy) -> str | None:
    """Return why the decision's signature does not count; None if it does or none is needed."""
    if not decision.signature:
        if policy.signatures == "optional":
            return None
        return (
            "a signature is required, and the form alone has none: "
            f"{sign_command(subject.version, decision.verdict)}"
        )
    wanted = text_of(decision, subject)
    if decision.signed != wanted:
        return f"another text was signed: {other_line(wanted, decision.signed)}"
    now = dt.datetime.now(dt.UTC)
    return signature_problem(policy, decision.reviewer.strip(), wanted, decision.signature, now)


def deadline(opened_at: dt.datetime, hours: float) -> dt.datetime:
    """Return when an undecided promotion is rejected."""
    return opened_at + dt.timedelta(hours=hours)


@once_per_run("decide")
def decide(settings: Settings, opened: Opened, shown: Shown, decided: Decided) -> Decided:
    """Write the final decision to the audit file and the MLflow run."""
    excepted = None
    if decided.verdict == "approve" and shown.exceptions:
        excepted = exceptions.ApprovedException(
            version=opened.version,
            reasons=shown.exceptions,
            owner=decided.owner.strip(),
            expires=dt.date.fromisoformat(decided.expires.strip()),
        )
    facts = shown.subject(opened, str(flow_run.id)).model_dump(mode="json") | {
        "reviewer": decided.reviewer,
        "reason": decided.reason,
        "signatures": decided.signatures,
        "signed": decided.signed,
        "signature": decided.signature,
    }
    require_held()
    record = AuditLog.of(settings).append(
        "approved" if decided.verdict == "approve" else "rejected",
        f"decided-{flow_run.id}",
        facts | (excepted.facts() if excepted else {}),
    )
    tags = {
        "decision": decided.verdict,
        "reviewer": decided.reviewer or "nobody",
        "reason": decided.reason,
        AUDIT_TAG: record.sha256,
    }
    if excepted:
        tags |= {"exception": excepted.line(decided.at.date())}
        Aliases(settings).tag(opened.version, {"exception": tags["exception"]})
    mlflow_runs.set_tags(mlflow_runs.client(settings), opened.mlflow_run_id, tags)
    champion = ServingRepository(settings.serving_repository).route().champion
    serves = champion is not None and champion.version == opened.version  # by another promotion
    if decided.verdict == "reject" and not serves:
        Aliases(settings).tag(
            opened.version,
            {"rejected_by": tags["reviewer"], "reason": decided.reason, AUDIT_TAG: record.sha256},
        )
    return decided
