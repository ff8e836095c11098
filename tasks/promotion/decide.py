"""Step `decide`: the approval form, the approval rules, and the final decision."""

import datetime as dt
from typing import Literal

from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import Field

from model_code.repository.audit import AuditLog
from model_code.settings import Settings
from tasks.caching.once_per_run import once_per_run
from tasks.promotion.aliases import Aliases
from tasks.promotion.records import AUDIT_TAG, Decided, Opened, Shown
from tasks.runs import mlflow_runs


class Decision(RunInput):
    """Input from the form in Prefect's page or from `tickline approve|reject`."""

    verdict: Literal["approve", "reject"] = Field(description="approve or reject")
    reviewer: str = Field(default="", description="your name, as in TICKLINE_REVIEWERS")
    reason: str = Field(default="", description="why; stored with the model permanently")


def problem(
    verdict: str, reviewer: str, reason: str, started_by: str, settings: Settings
) -> str | None:
    """Return why a decision is not valid; None if it is.

    Prefect does not verify identities: the name is only a claim, checked against the allow-list.
    """
    if not settings.reviewers:
        return "nobody may decide: TICKLINE_REVIEWERS is empty"
    if reviewer.strip() not in settings.reviewers:
        allowed = ", ".join(settings.reviewers)
        return f"reviewer {reviewer.strip()!r} is not in the allow-list ({allowed})"
    if not reason.strip():
        return "a reason is required"
    own = reviewer.strip().casefold() == started_by.strip().casefold()
    if verdict == "approve" and settings.four_eyes and own:
        return f"{reviewer.strip()} started this promotion: another reviewer must approve it"
    return None


def deadline(opened_at: dt.datetime, hours: float) -> dt.datetime:
    """Return when an undecided promotion is rejected."""
    return opened_at + dt.timedelta(hours=hours)


@once_per_run("decide")
def decide(settings: Settings, opened: Opened, shown: Shown, decided: Decided) -> Decided:
    """Write the final decision to the audit file and the MLflow run."""
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
    mlflow_runs.set_tags(mlflow_runs.client(settings), opened.mlflow_run_id, tags)
    if decided.verdict == "reject":
        Aliases(settings).tag(
            opened.version,
            {"rejected_by": tags["reviewer"], "reason": decided.reason, AUDIT_TAG: record.sha256},
        )
    return decided
