"""The release manager's commands: promote, approve, reject, rollback, audit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from flows.cli.options import PANELS, read_spec, settings_from_environment
from model_code.repository.audit import AuditLog, AuditRecord, account
from model_code.settings import PromotionSpec

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from tasks.promotion.records import Compared, Promoted

app = typer.Typer()
out = Console()

Which = Annotated[str, typer.Argument(help="Version, or the run's name from tickline promote.")]
Reviewer = Annotated[str, typer.Option(help="Your name, as in TICKLINE_REVIEWERS.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept with the model for good.")]


@app.command(rich_help_panel=PANELS.promotion)
def promote(
    version: Annotated[
        int | None, typer.Option(help="Registered version; default: the newest staged.")
    ] = None,
    started_by: Annotated[
        str | None, typer.Option(help="Who starts it; default: this account's name.")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(help="YAML of what the candidate must show (docs/settings.md)."),
    ] = None,
    allow_simulated: Annotated[
        bool, typer.Option("--allow-simulated", help="Rehearse with a model of simulated data.")
    ] = False,
) -> None:
    """Ask for a staged candidate to serve: shows the evidence and waits for a person's decision.

    Then [bold]tickline approve[/] or [bold]tickline reject[/], or Prefect's page. Once approved the
    candidate is proved in the real Triton server (recorded requests, load, shadow, canary) and
    swapped in without losing a request; whatever fails, what served before serves.

    The same command goes on with a promotion that was approved and then failed or was killed.
    """
    settings = settings_from_environment()
    wanted = read_spec(PromotionSpec, spec, {"allow_simulated": allow_simulated or None})
    from flows.runs import promotions

    outcome = promotions.start(settings, version, started_by or account(), wanted)
    say_outcome(outcome)


@app.command(rich_help_panel=PANELS.promotion)
def approve(which: Which, reviewer: Reviewer, reason: Reason) -> None:
    """Approve a promotion that waits: it is proved in the real server, then swapped in.

    Only names in TICKLINE_REVIEWERS count, and with TICKLINE_FOUR_EYES on (the default) not the
    one who started it.
    """
    _decide(which, "approve", reviewer, reason)


@app.command(rich_help_panel=PANELS.promotion)
def reject(which: Which, reviewer: Reviewer, reason: Reason) -> None:
    """Reject a promotion that waits: it ends, and what serves goes on serving."""
    _decide(which, "reject", reviewer, reason)


@app.command(rich_help_panel=PANELS.promotion)
def rollback(
    to: Annotated[
        int | None, typer.Option(help="Version; default: the one that served before.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; for the audit file.")] = "",
    by: Annotated[str | None, typer.Option(help="Who; default: this account's name.")] = None,
) -> None:
    """Let an earlier approved version serve again, in seconds and without losing a request.

    Its bytes are verified, it is loaded and must answer its golden requests before it gets any
    traffic. Needs the Triton server and MLflow; asks nobody.
    """
    settings = settings_from_environment()
    from flows.runs import promotions

    done = promotions.roll_back(settings, to, by or account(), reason)
    out.print(
        f"[bold green]version {done.version} serves[/], in place of {done.from_version}, "
        f"after {done.seconds:.1f} s"
    )
    before = "none" if done.previous is None else f"version {done.previous}"
    out.print(f"a further rollback would go to: {before}")


@app.command(rich_help_panel=PANELS.promotion)
def audit(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Print who let which version serve, when and why; proves that no line was changed."""
    settings = settings_from_environment()
    log = AuditLog(settings.audit_file)
    records = log.read()
    if as_json:
        for record in records:
            out.print(record.model_dump_json(), soft_wrap=True, markup=False, highlight=False)
        return
    if not records:
        out.print(f"nothing was promoted yet ({log.path})")
        return
    table = Table("", "when (UTC)", "what", "version", "who", "why", box=box.SIMPLE_HEAD)
    for record in records:
        table.add_row(*_row(record))
    out.print(table)
    out.print(f"{len(records)} records, unbroken; the newest is {records[-1].sha256}")
    out.print(f"[dim]{log.path}; MLflow has the same hash: tag audit_sha256 of the version")


def _row(record: AuditRecord) -> tuple[str, ...]:
    facts = record.facts
    who = [facts.get(key) for key in ("reviewer", "approved_by", "by")]
    version = str(facts.get("version"))
    if "from" in facts:
        version = f"{facts['from']} -> {version}"
    return (
        str(record.number),
        record.at[:19].replace("T", " "),
        record.event,
        version,
        next((str(name) for name in who if name), ""),
        str(facts.get("reason") or "").splitlines()[0] if facts.get("reason") else "",
    )


def _decide(which: str, verdict: str, reviewer: str, reason: str) -> None:
    settings = settings_from_environment()
    from flows.runs import promotions

    outcome = promotions.decide(settings, which, verdict, reviewer, reason)
    if outcome is None:
        out.print("resumed: a worker goes on with it; tickline audit shows how it ended")
    else:
        say_outcome(outcome)


def say_outcome(outcome: "Promoted | FlowRun") -> None:
    """Print how a promotion ended, or what it waits for."""
    from tasks.promotion.records import Promoted

    if isinstance(outcome, Promoted):
        _say_promoted(outcome)
        return
    version = outcome.parameters.get("version")
    out.print(f"[bold yellow]version {version} waits for a decision[/] (run {outcome.name})")
    out.print(f"  tickline approve {version} --reviewer NAME --reason TEXT")
    out.print(f"  tickline reject {version} --reviewer NAME --reason TEXT")
    out.print("  or the form in Prefect's page, and the evidence: tickline ui")


def _say_promoted(outcome: "Promoted") -> None:
    decided = outcome.decided
    if outcome.outcome == "rejected" and decided is not None:
        by = decided.reviewer or "nobody"
        out.print(f"[bold red]version {outcome.version} rejected[/] by {by}: {decided.reason}")
        return
    if outcome.validated is not None:
        found = outcome.validated
        out.print(
            f"{found.replayed} recorded requests answered as in the benchmark, "
            f"probabilities within {found.largest:.2g}"
        )
        table = Table("concurrency", "p50 ms", "p99 ms", "requests/s", box=box.SIMPLE_HEAD)
        for load in found.loads:
            table.add_row(
                str(load.concurrency),
                f"{load.p50_ms:.2f}",
                f"{load.p99_ms:.2f}",
                f"{load.throughput:,.0f}",
            )
        out.print(table)
    for name, part in (("shadow", outcome.shadow), ("canary", outcome.canary)):
        _say_compared(name, part)
    before = "none" if outcome.previous is None else f"version {outcome.previous}"
    serves = "serves already" if outcome.outcome == "already serving" else "serves"
    out.print(
        f"[bold green]version {outcome.version} {serves}[/]; a rollback would go to: {before}"
    )


def _say_compared(name: str, part: "Compared | None") -> None:
    if part is None:
        return
    if part.skipped:
        out.print(f"{name}: {part.skipped}")
    for seen in part.steps:
        ours, theirs = seen.candidate_p50_ms, seen.champion_p50_ms
        out.print(
            f"{name}: {seen.requests} requests, {seen.errors} failed, "
            f"{seen.disagreement:.1%} decided otherwise, "
            f"p50 {ours or float('nan'):.2f} ms (champion {theirs or float('nan'):.2f})"
        )
