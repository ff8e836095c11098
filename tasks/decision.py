"""The decision on a candidate: the form, and who may say what."""

import datetime as dt
from typing import Literal

from prefect.input import RunInput
from pydantic import Field

from model_code.settings import Settings


class Decision(RunInput):
    """What the form in Prefect's page, or `tickline approve|reject`, hands over."""

    verdict: Literal["approve", "reject"] = Field(description="approve or reject")
    reviewer: str = Field(default="", description="your name, as in TICKLINE_REVIEWERS")
    reason: str = Field(default="", description="why; it is kept with the model for good")


def problem(
    verdict: str, reviewer: str, reason: str, started_by: str, settings: Settings
) -> str | None:
    """Why a decision does not count; None where it does.

    Prefect knows no identities: the name is a claim, checked against the allow-list.
    """
    if not settings.reviewers:
        return "nobody may decide: TICKLINE_REVIEWERS names no reviewer"
    if reviewer.strip() not in settings.reviewers:
        allowed = ", ".join(settings.reviewers)
        return f"reviewer {reviewer.strip()!r} is not in the allow-list ({allowed})"
    if not reason.strip():
        return "a reason is needed"
    own = reviewer.strip().casefold() == started_by.strip().casefold()
    if verdict == "approve" and settings.four_eyes and own:
        return f"{reviewer.strip()} started this promotion: another reviewer must approve it"
    return None


def deadline(opened_at: dt.datetime, hours: float) -> dt.datetime:
    """When a promotion without a decision is rejected."""
    return opened_at + dt.timedelta(hours=hours)
