"""The outcome of a nightly run, and what a job prints when it starts."""

from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from model_code.benchmark.comparison import Comparison
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun
from model_code.benchmark.verdict import Verdict
from model_code.settings import NightlySpec
from tasks.caching.stage import RunRef
from tasks.nightly.records import NightResult, Record, Registered, Staged
from tasks.runs.mlflow_runs import client, run_link
from tasks.runs.page import say

console = Console()


class Outcome(Record):
    """What the command prints at the end, as plain values."""

    flow_run_name: str
    flow_run_id: str
    mlflow_run_id: str
    mlflow_url: str
    simulated: bool
    warnings: tuple[str, ...]
    test_date: str
    windows: dict[str, dict[str, float | int | str]]
    baseline: dict[str, float]
    model: str
    models: Comparison | None
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
        """The gate's verdict, goal by goal."""
        return Verdict.model_validate_json(self.verdict_json)

    @property
    def benchmark(self) -> BenchmarkResult:
        """The benchmark of all engines."""
        return BenchmarkResult.model_validate_json(self.benchmark_json)

    @property
    def majority(self) -> float:
        """Test accuracy of always predicting the more frequent label, weighted as the models'."""
        rate = float(self.windows["test"]["label_rate"])
        return max(rate, 1.0 - rate)

    @property
    def line(self) -> str:
        """Verdict, engine, its latency and the version, in one line."""
        row = self.benchmark.row(self.engine)
        times = f" p50 {row.p50_ms:.3f} ms, p99 {row.p99_ms:.3f} ms" if row else ""
        version = f"version {self.staged.version} staged" if self.staged else "nothing staged"
        return f"{self.verdict.verdict}: {self.engine}{times}; {version}"

    @property
    def behind_boosting(self) -> str:
        """A warning if gradient boosting has the higher test AUC; empty if it has not."""
        row = self.benchmark.row(self.engine)
        auc, boosting = row.quality.auc if row else None, self.baseline["auc"]
        if auc is None or round(auc, 4) >= round(boosting, 4):  # as it is shown
            return ""
        return f"gradient boosting is ahead on the test day: AUC {boosting:.4f}, model {auc:.4f}"

    @classmethod
    def of(cls, run: RunRef, name: str, result: NightResult, *, seconds: float) -> Self:
        """Collect the outcome from the stages' results."""
        candidate, judged = result.candidate, result.judged
        network = candidate.network
        benchmark = BenchmarkRun.load(run.store.open(result.measured.folder)).result
        staged = result.staged
        if staged is not None:
            folder = run.settings.located(staged.path)
            staged = staged.model_copy(update={"path": str(folder)})
        return cls(
            flow_run_name=name,
            flow_run_id=run.flow_run_id,
            mlflow_run_id=run.mlflow_run_id,
            mlflow_url=run_link(client(run.settings), run.settings, run.mlflow_run_id),
            simulated=result.plan.simulated,
            warnings=result.plan.warnings + candidate.notes + candidate.split.notes,
            test_date=str(result.plan.test_date),
            windows=candidate.split.summary,
            baseline=candidate.baseline.metrics,
            model=candidate.model.name,
            models=candidate.choice.comparison if candidate.choice else None,
            precision=f"{network.precision}: {network.precision_reason}",
            epochs=len(network.history),
            best_epoch=network.best_epoch,
            engine=judged.engine,
            verdict_json=judged.verdict_json,
            benchmark_json=benchmark.model_dump_json(),
            registered=result.registered,
            staged=staged,
            seconds=seconds,
        )


def print_start(job: str, spec: NightlySpec) -> None:
    """Print which job starts, and on which ticks."""
    say(f"{job} on {spec.market}")
    console.print(f"[bold]{job}[/] on [bold]{escape(str(spec.market))}[/]")
    if str(spec.market).startswith("simulated:"):
        console.print(simulated_banner())


def print_resume(name: str) -> None:
    """Print a nightly's name as part of the command that resumes it."""
    console.print(f"to resume after a failure: [bold]tickline rerun {name}[/]")


def simulated_banner() -> Panel:
    """Return a warning that the ticks are simulated."""
    return Panel(
        "[bold]These ticks are simulated.[/] The results say nothing about a real market. "
        "The model is labelled simulated and is not promotable.\n"
        "Real ticks: [bold]tickline nightly --data PATH[/]",
        title="[bold]SIMULATED MARKET",
        border_style="magenta",
    )
