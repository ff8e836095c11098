"""Judge a stored benchmark run again, and lay out the gate's verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from mlflow.exceptions import MlflowException
from pydantic import ValidationError
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from model_code.benchmark.gate import choose, judge_run, load_goals
from model_code.benchmark.judge import NO_BOOSTING
from model_code.benchmark.result import BenchmarkRun
from model_code.benchmark.verdict import Verdict
from model_code.errors import ConfigError
from model_code.settings import CHAMPION_ROW, Settings
from tasks.runs import mlflow_runs
from tasks.runs.stored import stored_run

MARKS = {"pass": "[green]pass[/]", "fail": "[bold red]FAIL[/]"}
COLOURS = {"pass": "green", "fail": "bold red"}
OTHER = "yellow"  # neither
NO_TERMS = (
    "this run of an earlier version does not say what the champion's figures refer to: it is "
    "judged as it was then. To compare features, label and split, measure again: tickline nightly"
)
REMEDY = "pass a benchmark's folder, or the name or id of an MLflow run that has one"


def replay(
    measured: str,
    goals: Path | None,
    settings: Settings,
    *,
    engines: Sequence[str] = (),
    pin: str | None = None,
) -> Group:
    """Judge a stored run and lay out the gate's verdicts.

    Args:
        measured: a benchmark's folder, or the name or id of an MLflow run.
        goals: YAML; None uses the shipped goals.
        settings: where MLflow is.
        engines: print the goals of these engines only; empty prints all.
        pin: choose this engine or none.

    Raises:
        ConfigError: there is no such run, or an engine was not judged in it.
        GateError: the goals are malformed, or the run cannot be judged.
    """
    asked = load_goals(goals)
    with _stored_run(measured, settings) as (run, simulated):
        verdicts = judge_run(run, asked, simulated=simulated, pin=pin)
        choice = choose(run, verdicts, pin)
    unknown = set(engines) - set(verdicts)
    if unknown:
        raise ConfigError(
            f"not judged in this run: {', '.join(sorted(unknown))}",
            remedy=f"choose from: {', '.join(verdicts)}",
        )
    summary = Table("engine", "p50 (ms)", "verdict", "why", title="Verdicts")
    for name, verdict in verdicts.items():
        row = run.result.row(name)
        colour = COLOURS.get(verdict.verdict, OTHER)
        summary.add_row(
            name,
            _number(row.p50_ms if row else None),
            f"[{colour}]{verdict.verdict}[/]",
            escape(verdict.reason),
        )
    shown = [_goals_table(name, verdicts[name]) for name in engines or verdicts]
    lines = [choice.verdict.resolution_line] if choice.verdict.resolution_line else []
    lines += [choice.verdict.family_line] if choice.verdict.family_line else []
    lines += _missing(verdicts)
    if run.result.terms is None and run.result.row(CHAMPION_ROW) is not None:
        lines.append(f"[yellow]note[/] {escape(NO_TERMS)}")
    return Group(*shown, summary, *lines, f"{escape(choice.reason)} ({choice.verdict.verdict})")


def _goals_table(name: str, verdict: Verdict) -> Table:
    table = Table("goal", "value", "limit", "against", "interval", "margin", "", title=name)
    for row in verdict.rows:
        bounds = row.interval
        table.add_row(
            escape(row.name),
            _number(row.value),
            row.limit,
            _number(row.reference),
            "" if bounds is None else f"{bounds.low:.3g} .. {bounds.high:.3g}",
            _number(row.margin),
            MARKS.get(row.word, f"[{OTHER}]{row.word}[/]"),
        )
    return table


def _missing(verdicts: Mapping[str, Verdict]) -> list[str]:
    """What the stored run lacks, and what to do about it."""
    rows = [row for verdict in verdicts.values() for row in verdict.rows]
    found = {row.reason for row in rows if row.passed is False and row.reason == NO_BOOSTING}
    return [f"[yellow]note[/] {escape(reason)}" for reason in found]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


@contextmanager
def _stored_run(measured: str, settings: Settings) -> Iterator[tuple[BenchmarkRun, bool]]:
    """Yield the stored run, and whether its market was simulated."""
    path = Path(measured).expanduser()
    if path.exists():
        run = _load(path)
        yield run, run.result.simulated
        return
    with TemporaryDirectory() as folder:
        downloaded, simulated = _download(settings, measured, folder)
        run = _load(downloaded)
        yield run, simulated or run.result.simulated


def _load(path: Path) -> BenchmarkRun:
    folder = path / "benchmark" if (path / "benchmark").is_dir() else path
    try:
        return BenchmarkRun.load(folder)
    except (OSError, ValidationError, pl.exceptions.PolarsError) as error:
        raise ConfigError(
            f"cannot read a benchmark from this folder: {type(error).__name__}",
            where=str(folder),
            remedy=REMEDY,
        ) from error


def _last(kept: Sequence[str]) -> str:
    """Return `benchmark` for a nightly, or a bench run's highest of `benchmark-1`, `-2`, ..."""
    numbers = [name.removeprefix("benchmark-") for name in kept if name.startswith("benchmark-")]
    counted = [int(number) for number in numbers if number.isdecimal()]
    return f"benchmark-{max(counted)}" if counted else "benchmark"


def _download(settings: Settings, name: str, folder: str) -> tuple[Path, bool]:
    """Download the last benchmark of an MLflow run; of equally named runs, the newest's."""
    mlflow = mlflow_runs.client(settings)
    try:
        run = stored_run(mlflow, name)
        kept = [entry.path for entry in mlflow.list_artifacts(run.info.run_id)]
        path = mlflow.download_artifacts(run.info.run_id, _last(kept), folder)
    except (MlflowException, OSError) as error:
        raise ConfigError(
            f"no folder and no run with a benchmark is named {name!r}",
            where=settings.tracking_uri,
            remedy=REMEDY,
        ) from error
    return Path(path), run.data.tags.get("tickline.simulated") == "true"
