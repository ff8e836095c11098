"""What is recorded of a promotion or a rollback: who, its outcome, what to run next."""

from typing import NamedTuple

from prefect.client.schemas.objects import FlowRun

from model_code.errors import TicklineError
from model_code.repository.audit import AuditLog, AuditRecord
from model_code.settings import Settings
from tasks.runs.names import next_command


class Release(NamedTuple):
    """What the audit file and the parameters of a promotion or a rollback say.

    Attributes:
        who: did what; empty if that is not recorded.
        outcome: of a run that ended; empty if that is not recorded.
        command: resumes it, or starts it again; None if it is neither.
        waits: what a reviewer runs; empty unless it waits for a decision.
    """

    who: str = ""
    outcome: str = ""
    command: str | None = None
    waits: str = ""

    @classmethod
    def of(cls, settings: Settings, run: FlowRun, flow: str) -> "Release":
        """Read what is recorded of a flow run; of another flow there is nothing."""
        if flow not in {"promote", "rollback"}:
            return cls()
        records = {record.event: record for record in _records(settings, run)}
        if flow == "rollback":
            return cls._of_rollback(run, records)
        version = run.parameters.get("version")
        started = _fact(records, "started", "by") or run.parameters.get("started_by")
        parts = [f"started by {started}" if started else ""]
        outcome = ""
        for event in ("approved", "rejected"):
            if event in records:
                reviewer = _fact(records, event, "reviewer") or _fact(records, event, "by")
                by = f" by {reviewer}" if reviewer else ""
                parts.append(f"{event}{by}")
                outcome = f"version {version} was {event}{by}: {_fact(records, event, 'reason')}"
        if "promoted" in records:
            outcome = f"version {version} was promoted"
        paused = run.state is not None and run.state.is_paused()
        options = f"{version} --reviewer NAME --reason TEXT"
        return cls(
            who=", ".join(part for part in parts if part),
            outcome=outcome,
            command=next_command("promote", run),
            waits=f"tickline approve {options}, or tickline reject {options}" if paused else "",
        )

    @classmethod
    def _of_rollback(cls, run: FlowRun, records: dict[str, AuditRecord]) -> "Release":
        by = _fact(records, "rolled back", "by") or run.parameters.get("by")
        reason = _fact(records, "rolled back", "reason") or run.parameters.get("reason")
        version = _fact(records, "rolled back", "version")
        return cls(
            who=f"started by {by}" + (f": {reason}" if reason else "") if by else "",
            outcome=f"rolled back to version {version}" if version else "",
            command=next_command("rollback", run),
        )


def _records(settings: Settings, run: FlowRun) -> list[AuditRecord]:
    try:
        found = AuditLog.of(settings).read()
    except TicklineError:  # a broken audit file has its own message: tickline audit
        return []
    return [record for record in found if record.facts.get("flow_run_id") == str(run.id)]


def _fact(records: dict[str, AuditRecord], event: str, name: str) -> str:
    found = records[event].facts.get(name) if event in records else None
    return "" if found is None else str(found)
