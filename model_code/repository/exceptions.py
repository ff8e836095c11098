"""Approvals with an exception: the verdict was no plain `pass`, or features drifted far.

Such an approval names an owner and a date until which it holds, as the supervisory guidance on
model risk asks of an accepted exception (Federal Reserve and OCC, SR 11-7, 2011). The audit file
has them all; the exception of the version that serves is the one that counts.
"""

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict

from model_code.features.drift import LARGE
from model_code.repository.audit import AuditRecord

FACT = "exception"  # of the records `approved` and `exception renewed`
RENEWED, CLOSED = "exception renewed", "exception closed"
TURNED = ("promoted", "rolled back")  # events after which a version serves
HEADING = "tickline exception 1"  # what a signed text is, and the version of its form
SOON = dt.timedelta(days=7)


class Terms(TypedDict, total=False):
    """What an approval says of its exception: who answers for it, and its last day (ISO 8601)."""

    owner: str
    expires: str


class ApprovedException(BaseModel):
    """An accepted exception.

    Attributes:
        version: that was approved with it.
        reasons: why the approval is not a plain one.
        owner: who answers for it.
        expires: the last day (UTC) on which it holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    reasons: tuple[str, ...]
    owner: str
    expires: dt.date

    @property
    def end(self) -> dt.datetime:
        """The first moment at which it holds no longer."""
        return dt.datetime.combine(self.expires + dt.timedelta(days=1), dt.time(), dt.UTC)

    def lapsed(self, today: dt.date) -> bool:
        """Whether it holds no longer."""
        return today > self.expires

    def soon(self, today: dt.date) -> bool:
        """Whether it lapses within a week."""
        return today > self.expires - SOON

    def line(self, today: dt.date) -> str:
        """The exception in words."""
        days = (self.expires - today).days
        when = f"lapses after {self.expires}" if days >= 0 else f"lapsed on {self.expires}"
        return f"version {self.version}, {'; '.join(self.reasons)}: owner {self.owner}, {when}"

    def text(self, event: str, reviewer: str, reason: str, policy_sha256: str) -> str:
        """What a reviewer signs who renews or closes it: one fact a line."""
        facts = {
            "event": event,
            "version": self.version,
            "reasons": list(self.reasons),
            "owner": self.owner,
            "last day": self.expires.isoformat(),
            "reviewer": reviewer,
            "reason": reason,
            "policy sha256": policy_sha256,
        }
        lines = [f"{name}: {json.dumps(fact, ensure_ascii=False)}" for name, fact in facts.items()]
        return "\n".join([HEADING, *lines]) + "\n"

    def facts(self) -> dict[str, Any]:
        """What an audit record has of it."""
        return {FACT: self.model_dump(mode="json", exclude={"version"})}


def reasons_for(
    verdict: str, drift: Mapping[str, float], not_comparable: str | None = None
) -> tuple[str, ...]:
    """Why an approval needs an exception; empty if it is a plain one.

    Args:
        verdict: the gate's.
        drift: population stability index by feature.
        not_comparable: the reason given for a version that was not compared.
    """
    found = []
    if verdict != "pass":
        found.append(f"{verdict} ({not_comparable})" if not_comparable else verdict)
    large = sorted(name for name, psi in drift.items() if psi > LARGE)
    if large:
        found.append(f"large drift of {', '.join(large)}")
    return tuple(found)


def problem(
    reasons: Sequence[str], owner: str, expires: str, today: dt.date, longest_days: int
) -> str | None:
    """Why an exception is not accepted; None if it is, or none is needed.

    Args:
        reasons: of the exception.
        owner: who answers for it.
        expires: ISO 8601 date.
        today: UTC.
        longest_days: that an exception may last.
    """
    if not reasons:
        return None
    need = f"this approval is an exception ({'; '.join(reasons)})"
    if not owner.strip():
        return f"{need}: name its owner"
    try:
        last = dt.date.fromisoformat(expires.strip())
    except ValueError:
        return f"{need}: say until when it holds, as YYYY-MM-DD, not {expires!r}"
    if not today <= last <= today + dt.timedelta(days=longest_days):
        return f"{need}: it must end between today and {longest_days} days from now, not {last}"
    return None


def serving_exception(records: Iterable[AuditRecord]) -> ApprovedException | None:
    """The exception of the version that serves, by the audit file; None if it has none.

    One of a version that no longer serves does not count. After a rollback to it, it counts again,
    unless it was closed.
    """
    known: dict[int, ApprovedException | None] = {}
    serving: int | None = None
    for record in records:
        version = record.facts.get("version")
        if not isinstance(version, int):
            continue
        if record.event in ("approved", RENEWED):
            found = record.facts.get(FACT)
            known[version] = (
                ApprovedException.model_validate({"version": version, **found})
                if isinstance(found, dict)
                else None
            )
        elif record.event == CLOSED:
            known[version] = None
        elif record.event in TURNED:
            serving = version
    return None if serving is None else known.get(serving)
