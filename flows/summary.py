"""What a nightly prints: what it is about to do, each stage as it ends, the outcome."""

from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from model_code.benchmark.result import BenchmarkResult, BenchmarkRun
from model_code.benchmark.verdict import Verdict
from model_code.settings import NightlySpec
from tasks.results import (
    Judged,
    Measured,
    Plan,
    Record,
    Registered,
    SplitWindows,
    Staged,
    TrainedNetwork,
)
from tasks.stage import RunRef

COLOURS = {"pass": "green", "no baseline": "yellow", "fail": "red"}
console = Console()


class Outcome(Record):
    """What the command prints at the end, as plain values."""

    flow_run_name: str
    mlflow_run_id: str
    mlflow_url: str
    simulated: bool
    warnings: tuple[str, ...]
    test_date: str
    windows: dict[str, dict[str, float | int | str]]
    baseline: dict[str, float]
    precision: str
    epochs: int
    best_epoch: int
    engine: str
    verdict_json: str
    benchmark_json: str
    registered: Registered | None
    staged: Staged | None
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The gate's word, goal by goal."""
        return Verdict.model_validate_json(self.verdict_json)

    @property
    def benchmark(self) -> BenchmarkResult:
        """The engines' table."""
        return BenchmarkResult.model_validate_json(self.benchmark_json)

    @classmethod
    def of(
        cls,
        run: RunRef,
        name: str,
        plan: Plan,
        split: SplitWindows,
        rival: dict[str, float],
        network: TrainedNetwork,
        measured: Measured,
        judged: Judged,
        registered: Registered | None,
        staged: Staged | None,
    ) -> Self:
        """Collect the outcome from the stages' results."""
        result = BenchmarkRun.load(measured.folder.open()).result
        return cls(
            flow_run_name=name,
            mlflow_run_id=run.mlflow_run_id,
            mlflow_url=run.settings.mlflow_ui_url,
            simulated=plan.simulated,
            warnings=plan.warnings,
            test_date=str(plan.test_date),
            windows=split.summary,
            baseline=rival,
            precision=f"{network.precision}: {network.precision_reason}",
            epochs=len(network.history),
            best_epoch=network.best_epoch,
            engine=judged.engine,
            verdict_json=judged.verdict_json,
            benchmark_json=result.model_dump_json(),
            registered=registered,
            staged=staged,
        )


def announce(job: str, name: str, spec: NightlySpec) -> None:
    """Say what starts, on which ticks, and how to go on if it dies."""
    console.print(f"[bold]{job}[/] {name} on [bold]{spec.market}[/]")
    if str(spec.market).startswith("simulated:"):
        console.print(_banner())
    if job == "nightly":
        console.print(f"if it stops half-way: [bold]tickline rerun {name}[/]")


def render(outcome: Outcome) -> RenderableType:
    """The outcome: verdict, table, where to look next, the command for it."""
    verdict = outcome.verdict
    colour = COLOURS[verdict.verdict]
    parts: list[RenderableType] = [_banner()] if outcome.simulated else []
    parts.append(_engines(outcome))
    parts += [
        f"[dim]{name} is unavailable: {reason}"
        for name, reason in outcome.benchmark.unavailable.items()
    ]
    parts.append(goals_table(verdict))
    parts += [f"[yellow]note[/] {warning}" for warning in outcome.warnings]
    parts.append(
        Panel(
            f"[bold {colour}]{verdict.verdict}[/]  {verdict.reason}\n" + _next(outcome),
            title=f"nightly {outcome.flow_run_name}: {outcome.seconds:.0f} s",
            border_style=colour,
        )
    )
    return Group(*parts)


def _banner() -> Panel:
    return Panel(
        "[bold]These ticks are made up.[/] The run shows how things work, not what a market does; "
        "its model is labelled simulated and is not promotable.\n"
        "Real ticks: [bold]tickline nightly --data PATH[/]",
        title="[bold]SIMULATED MARKET",
        border_style="magenta",
    )


def _engines(outcome: Outcome) -> Table:
    result = outcome.benchmark
    table = Table(
        title=f"Engines on {result.windows:,} windows of {outcome.test_date}"
        + (" (SIMULATED)" if outcome.simulated else ""),
        caption=f"latency in ms at batch 1, {result.requests} requests each, interleaved; "
        f"windows/s at batch {max(int(size) for size in result.rows[0].throughput_at)}; "
        "flips: decided otherwise than FP32",
        box=box.SIMPLE_HEAD,  # all of it within 80 columns
        padding=(0, 1, 0, 0),
    )
    table.add_column("engine", no_wrap=True)
    for heading in ("mean", "p50", "p99", "win/s", "accuracy", "AUC", "flips"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result.rows:
        quality = row.quality
        numbers = [f"{value:.2f}" for value in (row.mean_ms, row.p50_ms, row.p99_ms)]
        scores = [
            "–" if score is None else f"{score:.4f}" for score in (quality.accuracy, quality.auc)
        ]
        mark = "[bold green]" if row.engine == outcome.engine else ""
        table.add_row(
            f"{mark}{row.engine}", *numbers, f"{row.throughput:,.0f}", *scores, str(quality.flips)
        )
    rival = outcome.baseline
    table.add_section()
    table.add_row(
        "[dim]gradient boosting", *[""] * 4, f"{rival['accuracy']:.4f}", f"{rival['auc']:.4f}", ""
    )
    return table


def goals_table(verdict: Verdict) -> Table:
    """The gate's goals, one a line."""
    table = Table("goal", "value", "limit", "", title="Gate", box=box.SIMPLE_HEAD)
    marks = {True: "[green]met", False: "[red]missed", None: "[yellow]no baseline"}
    for row in verdict.rows:
        value = "–" if row.value is None else f"{row.value:.4g}"
        table.add_row(row.name, value, row.limit, marks[row.passed])
    return table


def _next(outcome: Outcome) -> str:
    lines = [f"trained {outcome.epochs} epochs, best {outcome.best_epoch}, in {outcome.precision}"]
    if outcome.registered and outcome.staged:
        version = outcome.registered
        lines.append(f"registered as {version.name} version {version.version} ({version.alias})")
        lines.append(f"staged ({outcome.engine}): {outcome.staged.path}")
    else:
        lines.append("not registered, not staged: the gate failed")
    lines.append(f"look at everything: [bold]tickline ui[/]   MLflow run {outcome.mlflow_run_id}")
    return "\n".join(lines)
