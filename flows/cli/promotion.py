"""The release manager's commands: promote, approve, reject, rollback, audit."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Unpack

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from flows.cli.options import PANELS, Key, Yes, expanded, read_spec, settings_from_environment
from flows.cli.policy import say_ignored
from flows.cli.targets import say_behind
from model_code.errors import ConfigError
from model_code.repository.audit import AuditLog, AuditRecord, account
from model_code.repository.decisions import Subject, Word
from model_code.repository.exceptions import Terms
from model_code.settings import PromotionSpec, Settings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from tasks.promotion.records import Compared, Promoted

app = typer.Typer()
out = Console()

Which = Annotated[str, typer.Argument(help="Version, or the run's name from tickline promote.")]
Reviewer = Annotated[str, typer.Option(help="Your name, as in the policy.")]
Reason = Annotated[str, typer.Option(help="Why; stored with the model permanently.")]


@app.command(rich_help_panel=PANELS.promotion)
def promote(
    version: Annotated[
        int | None, typer.Option(help="Staged version.", show_default="the newest")
    ] = None,
    started_by: Annotated[
        str | None, typer.Option(help="Who starts it.", show_default="this account's name")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            help="YAML of the promotion's limits (docs/settings.md).",
            show_default="the policy's",
            callback=expanded,
        ),
    ] = None,
    allow_simulated: Annotated[
        bool, typer.Option("--allow-simulated", help="Allow a model of simulated data (rehearsal).")
    ] = False,
    not_comparable: Annotated[
        str | None,
        typer.Option(
            help="Why a version may serve that was not compared with the champion.",
            show_default="it may not",
        ),
    ] = None,
) -> None:
    """Start the promotion of a staged candidate: show the evidence and wait for approval.

    Use it after a nightly whose candidate passed the gate. Decide with
    [bold]tickline approve[/], [bold]tickline reject[/] or in Prefect's page. After approval the
    candidate is validated on the real Triton server (recorded requests, load,
    shadow, canary) and promoted without losing a request. On any failure the
    previous version is restored.

    If an approved promotion failed or was killed, the same command resumes it.
    """
    settings = settings_from_environment()
    say_ignored(settings)
    changes = {"allow_simulated": allow_simulated or None, "not_comparable": not_comparable}
    wanted = read_spec(PromotionSpec, spec, changes)
    from flows.runs import promotions

    outcome = promotions.start(settings, version, started_by or account(), wanted)
    say_outcome(outcome)


@app.command(rich_help_panel=PANELS.promotion)
def approve(
    which: Which,
    reviewer: Reviewer,
    reason: Reason,
    owner: Annotated[
        str, typer.Option(help="Who answers for an exception.", show_default="none")
    ] = "",
    expires: Annotated[
        str, typer.Option(help="The exception's last day, YYYY-MM-DD (UTC).", show_default="none")
    ] = "",
    key: Key = None,
    yes: Yes = False,
) -> None:
    """Approve a waiting promotion: it is validated on the real server, then promoted.

    Use it after you have read the evidence page. The policy names the reviewers
    ([bold]tickline policy show[/]). With its four_eyes on (the default), the person
    who started the promotion, or the night of its version, cannot approve it.

    With --key the decision is signed: what is signed is shown first. A policy can
    require it. The signature counts if allowed_signers of the policy has the key.
    """
    _decide(which, "approve", reviewer, reason, key, yes, owner=owner, expires=expires)


@app.command(rich_help_panel=PANELS.promotion)
def reject(
    which: Which, reviewer: Reviewer, reason: Reason, key: Key = None, yes: Yes = False
) -> None:
    """Reject a waiting promotion: it ends, and the serving model stays unchanged.

    Use it if the evidence is not good enough. The policy names the reviewers
    ([bold]tickline policy show[/]).
    """
    _decide(which, "reject", reviewer, reason, key, yes)


@app.command(rich_help_panel=PANELS.promotion)
def rollback(
    to: Annotated[
        int | None, typer.Option(help="Roll back to this version.", show_default="the previous one")
    ] = None,
    reason: Annotated[
        str, typer.Option(help="Why; written to the audit file.", show_default="none")
    ] = "",
    by: Annotated[
        str | None, typer.Option(help="Who rolls back.", show_default="this account's name")
    ] = None,
    emergency: Annotated[
        bool,
        typer.Option(
            "--emergency", help="With Triton and local files alone; also stops a running promotion."
        ),
    ] = False,
) -> None:
    """Roll back to an earlier approved version, in seconds and without losing a request.

    Use it when the serving model answers wrongly or slowly. The version's bytes
    are verified, and it must answer its golden requests before it gets traffic.
    It needs the Triton server, MLflow and Prefect, but no approval.

    If MLflow or Prefect is down, or a promotion holds the lock: [bold]--emergency[/].
    It takes over from a running promotion, stops its canary, and turns the route
    to the version before it. The promotion can then change nothing more. Of
    several targets one is enough. Afterwards run [bold]tickline reconcile[/].
    """
    settings = settings_from_environment()
    if emergency:
        _roll_back_at_once(settings, to, by or account(), reason)
        return
    from flows.runs import promotions

    done = promotions.roll_back(settings, to, by or account(), reason)
    out.print(
        f"[bold green]version {done.version} is serving[/] (before: {done.from_version}), "
        f"after {done.seconds:.1f} s"
    )
    before = "none" if done.previous is None else f"version {done.previous}"
    out.print(f"the next rollback goes to: {before}")
    say_behind(done.behind)


def _roll_back_at_once(settings: Settings, to: int | None, by: str, reason: str) -> None:
    if not reason.strip():
        raise ConfigError(
            "an emergency rollback needs a reason", remedy="say why: --reason TEXT; it is recorded"
        )
    from tasks.promotion.emergency import emergency_rollback

    done = emergency_rollback(settings, to, by, reason.strip())
    found = done.emergency
    before = "none" if found.before is None else str(found.before)
    out.print(
        f"[bold green]version {found.version} is serving[/] (before: {before}), "
        f"after {done.seconds:.1f} s"
    )
    for note in done.notes:
        out.print(f"  {escape(note)}")
    out.print(f"recorded in {escape(str(done.record))}", soft_wrap=True)
    say_behind(found.behind)
    out.print(
        "MLflow and Prefect do not know it yet; once they are up: [bold]tickline reconcile[/]"
    )


@app.command(rich_help_panel=PANELS.promotion)
def audit(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compare chain, signatures, MLflow's tags and the folders that served.",
        ),
    ] = False,
    share: Annotated[
        bool,
        typer.Option(
            "--share", help="Copy this home's records that the shared store lacks to the store."
        ),
    ] = False,
) -> None:
    """Show who approved which version, when, and why; verify that no record was changed.

    Use it to see what is serving and which versions a rollback can go to. With
    --verify every difference is a line of the table, a missing file too; exit
    status 1: there are some. It needs MLflow. --share is for a home with an
    audit file whose TICKLINE_STORE is set for the first time.
    """
    settings = settings_from_environment()
    if verify:
        _verify(settings)
        return
    log = AuditLog.of(settings)
    if share:
        out.print(f"{log.share()} records copied to {settings.store}")
        return
    records = log.read()
    if as_json:
        for record in records:
            out.print(record.model_dump_json(), soft_wrap=True, markup=False, highlight=False)
        return
    if not records:
        out.print(f"no promotion yet ({log.path})")
        return
    table = Table("", "when (UTC)", "what", "version", "who", "why", box=box.SIMPLE_HEAD)
    for record in records:
        table.add_row(*_row(record))
    out.print(table)
    out.print(f"{len(records)} records, hash chain valid; newest: {records[-1].sha256}")
    out.print(f"[dim]{log.path}; the version's tag audit_sha256 in MLflow has the same hash")


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


def _terminal() -> bool:
    return sys.stdin.isatty()


def _verify(settings: Settings) -> None:
    from tasks.promotion.verify_audit import verify_audit

    found = verify_audit(settings)
    compared = (
        f"{found.records} records, {found.signatures} signatures, "
        f"{len(found.versions)} promoted versions compared"
    )
    if not found.differences:
        out.print(f"[bold green]no difference[/]: {compared}")
        return
    table = Table("where", "difference", box=box.SIMPLE_HEAD)
    for one in found.differences:
        table.add_row(escape(one.where), escape(one.what))
    out.print(table)
    out.print(f"[bold red]{len(found.differences)} differences[/]: {compared}")
    raise typer.Exit(1)


def _decide(
    which: str,
    verdict: Word,
    reviewer: str,
    reason: str,
    key: Path | None,
    yes: bool,
    **exception: Unpack[Terms],
) -> None:
    settings = settings_from_environment()
    say_ignored(settings)
    from flows.runs import promotions

    def agree(subject: Subject, text: str) -> bool:
        for line in subject.loosened:
            out.print(f"[bold red]loosened[/]: {escape(line)}")
        out.print(Panel(escape(text.rstrip()), title="what is signed"))
        return yes or not _terminal() or typer.confirm("Sign it?")

    outcome = promotions.decide(
        settings, which, verdict, reviewer, reason, key=key, agree=agree, **exception
    )
    if outcome is None:
        out.print("resumed; a worker will pick it up. See the outcome: tickline audit")
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
    out.print("  --key FILE signs it; the policy may require that")
    out.print("  --owner NAME --expires DATE, if the evidence says that it is an exception")
    out.print("  or use the form in Prefect's page; evidence page and form: tickline ui")


def _say_promoted(outcome: "Promoted") -> None:
    decided = outcome.decided
    if outcome.outcome == "rejected" and decided is not None:
        by = f" by {decided.reviewer}" if decided.reviewer else ""
        out.print(f"[bold red]version {outcome.version} rejected[/]{by}: {decided.reason}")
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
    serving = "is already serving" if outcome.outcome == "already serving" else "is serving"
    out.print(f"[bold green]version {outcome.version} {serving}[/]; a rollback goes to: {before}")
    say_behind(outcome.behind)


def _say_compared(name: str, part: "Compared | None") -> None:
    if part is None:
        return
    if part.skipped:
        out.print(f"{name}: {part.skipped}")
    for seen in part.steps:
        for line in seen.lines:
            out.print(f"{name}: {line}")
    if not part.goals:
        return
    table = Table("goal", "count", "rate", "limit", "finding", box=box.SIMPLE_HEAD, title=name)
    for goal in part.goals[-1]:
        table.add_row(
            goal.goal,
            f"{goal.hits}/{goal.trials}",
            f"{goal.lower:.1%} to {goal.upper:.1%}",
            f"{goal.limit:.1%}",
            goal.words,
        )
    out.print(table)
