"""Tables that `tickline nightly` and `tickline bench` print, with verdict and choice."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from flows.bench import Bench, verdicts
from flows.runs.outcome import Outcome, simulated_banner
from model_code.benchmark import gate
from model_code.benchmark.comparison import Comparison, between
from model_code.benchmark.reports.latency_sheets import chosen_line
from model_code.benchmark.reports.report import sheets
from model_code.benchmark.reports.selection import faster
from model_code.benchmark.reports.sheet import Sheet, ms
from model_code.benchmark.roster import FAILED
from model_code.benchmark.verdict import Verdict

COLOURS = {
    "pass": "green", "no baseline": "yellow", "too few events": "yellow",
    "not comparable": "yellow", "fail": "red",
}  # fmt: skip
MARKS = {"pass": "[green]met", "fail": "[red]missed"}


def outcome_tables(outcome: Outcome) -> RenderableType:
    """Lay out a nightly's outcome: engines, goals, verdict, where to look next."""
    verdict = outcome.verdict
    colour = COLOURS[verdict.verdict]
    parts: list[RenderableType] = [simulated_banner()] if outcome.simulated else []
    if outcome.models:
        parts.append(_models(outcome.models))
    parts.append(_engines(outcome))
    parts += [
        f"[yellow]{name} {escape(reason)}"
        if reason.startswith(FAILED)
        else f"[dim]{name} is unavailable: {escape(reason)}"
        for name, reason in outcome.benchmark.unavailable.items()
    ]
    parts.append(goals_table(verdict))
    if outcome.behind_boosting:
        parts.append(f"[bold yellow]warning[/] {outcome.behind_boosting}")
    parts += [f"[yellow]note[/] {escape(warning)}" for warning in outcome.warnings]
    parts.append(
        Panel(
            f"[bold {colour}]{verdict.verdict}[/]  {verdict.reason}\n" + _next(outcome),
            title=f"{outcome.flow_run_name}: {outcome.seconds:.0f} s",
            border_style=colour,
        )
    )
    return Group(*parts)


def _models(found: Comparison) -> Table:
    table = Table(
        title=f"Models on {found.windows:,} test windows, {found.base_rate:.1%} positive",
        caption="ahead: 95% interval of AUC less gradient boosting's; AP: average precision; "
        f"p50 in ms at batch 1 (ONNX Runtime FP32). {found.reason}",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("model", no_wrap=True)
    for heading in ("AUC", "ahead", "AP", "log loss", "p50", "fit s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.rows:
        mark = "[bold green]" if row.name == found.chosen else ""
        table.add_row(
            f"{mark}{row.name}",
            f"{row.auc:.4f}",
            between(row.ahead),
            f"{row.average_precision:.4f}",
            f"{row.log_loss:.4f}",
            f"{row.p50_ms:.3f}",
            f"{row.seconds:.0f}",
        )
    boosting = [found.boosting[name] for name in ("auc", "average_precision", "log_loss")]
    auc, precision, loss = (f"{value:.4f}" for value in boosting)
    table.add_section()
    table.add_row("[dim]baseline", auc, "", precision, loss, "", "")
    return table


def _engines(outcome: Outcome) -> Table:
    result = outcome.benchmark
    table = Table(
        title=f"Engines of {outcome.model} on {result.windows:,} windows of {outcome.test_date}"
        + (" (SIMULATED)" if outcome.simulated else ""),
        caption=f"latency in ms at batch 1, {result.requests} requests each, interleaved; "
        f"windows/s at batch {max(int(size) for size in result.rows[0].throughput_at)}; "
        "flips: decisions that differ from FP32",
        box=box.SIMPLE_HEAD,  # fits 80 columns
        padding=(0, 1, 0, 0),
    )
    table.add_column("engine", no_wrap=True)
    for heading in ("mean", "p50", "p99", "win/s", "accuracy", "AUC", "flips"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result.rows:
        quality = row.quality
        numbers = [ms(value) for value in (row.mean_ms, row.p50_ms, row.p99_ms)]
        scores = [
            "–" if score is None else f"{score:.4f}" for score in (quality.accuracy, quality.auc)
        ]
        mark = "[bold green]" if row.engine == outcome.engine else ""
        table.add_row(
            f"{mark}{row.engine}", *numbers, f"{row.throughput:,.0f}", *scores, str(quality.flips)
        )
    for beside in result.beside:
        numbers = [ms(value) for value in (beside.mean_ms, beside.p50_ms, beside.p99_ms)]
        table.add_row(f"[dim]{beside.engine}", *numbers, "", "", "", "")
    boosting = outcome.baseline
    table.add_section()
    for name, accuracy, auc in (
        ("gradient boosting", boosting["accuracy"], boosting["auc"]),
        ("majority class", outcome.majority, 0.5),
    ):
        table.add_row(f"[dim]{name}", *[""] * 4, f"{accuracy:.4f}", f"{auc:.4f}", "")
    return table


def goals_table(verdict: Verdict) -> Table:
    """Lay out the gate's goals, one per row."""
    table = Table("goal", "value", "limit", "", title="Gate", box=box.SIMPLE_HEAD)
    for row in verdict.rows:
        value = "–" if row.value is None else f"{row.value:.4g}"
        table.add_row(row.name, value, row.limit, MARKS.get(row.word, f"[yellow]{row.word}"))
    return table


def _next(outcome: Outcome) -> str:
    lines = [f"trained {outcome.epochs} epochs, best {outcome.best_epoch}, in {outcome.precision}"]
    if outcome.registered and outcome.staged:
        version = outcome.registered
        lines.append(f"registered as {version.name} version {version.version} ({version.alias})")
        lines.append(f"staged ({outcome.engine}): {outcome.staged.path}")
    else:
        why = "the gate failed" if outcome.verdict.verdict == "fail" else outcome.verdict.verdict
        lines.append(f"not registered, not staged: {why}")
    lines += [outcome.verdict.resolution_line] if outcome.verdict.resolution_line else []
    run = f"[link={outcome.mlflow_url}]MLflow run {outcome.mlflow_run_id}[/link]"
    lines.append(f"all results: [bold]tickline ui[/]   {run}")
    return "\n".join(lines)


def bench_tables(found: tuple[Bench, ...]) -> Iterator[RenderableType]:
    """Yield everything to print, in order; the last line is the summary."""
    last = found[-1]
    for sheet in sheets(last.result):
        yield sheet_table(sheet)
    yield sheet_table(verdicts(last.judged))
    yield sheet_table(faster(last.result, last.judged.selection))
    verdict = last.judged.verdict
    yield goals_table(verdict)
    yield f"{verdict.verdict}: {verdict.reason}"
    yield last.judged.reason
    if verdict.resolution_line:
        yield verdict.resolution_line
    yield f"raw numbers and plots: {last.folder}"
    if last.result.simulated:
        yield "SIMULATED MARKET: the ticks are simulated, the figures describe no real market"
    yield chosen_line(last.result, last.judged.engine)
    if len(found) > 1:
        yield from repeated(found)


def repeated(found: tuple[Bench, ...]) -> list[str]:
    """Compare repeated measurements with the first; the last line is the summary.

    Engines that one measurement cannot tell apart share a place ("a = b"), in the table's order.
    For the first and the last place the summary names the engine that held it, alone or shared,
    most often.
    """
    standings = [gate.places(done.run) for done in found]
    rankings = [[name for place in standing for name in place] for standing in standings]
    chosen = [done.judged.engine for done in found]
    outcomes = [done.judged.verdict.verdict for done in found]
    changed = _changed_verdicts([done.judged.verdicts for done in found])
    lines = [
        f"measurement {turn}: chose {done.judged.engine} ({done.judged.verdict.verdict}); "
        + " < ".join(" = ".join(place) for place in standing)
        for turn, (done, standing) in enumerate(zip(found, standings, strict=True), 1)
    ]
    return [
        *lines,
        f"verdicts that changed: {changed or 'none'}",
        f"first place {_most_frequent([standing[0] for standing in standings])}, "
        f"last place {_most_frequent([standing[-1] for standing in standings])}, "
        f"chosen {chosen[0]} {_same(chosen)}",
        f"same ranking {_same(rankings)}, same verdict {_same(outcomes)}",
    ]


def _same(values: Sequence[object]) -> str:
    return f"{sum(value == values[0] for value in values)}/{len(values)}"


def _most_frequent(places: Sequence[tuple[str, ...]]) -> str:
    name, times = Counter(name for place in places for name in place).most_common(1)[0]
    return f"{name} {times}/{len(places)}"


def _changed_verdicts(judged: Sequence[Mapping[str, str]]) -> str:
    """List the engines whose verdict changed, with the number of times for each verdict."""
    engines = dict.fromkeys(name for found in judged for name in found)
    counts = {name: Counter(found.get(name, "not judged") for found in judged) for name in engines}
    return "; ".join(
        f"{name} " + ", ".join(f"{verdict} {times}" for verdict, times in found.items())
        for name, found in counts.items()
        if len(found) > 1
    )


def sheet_table(sheet: Sheet) -> Table:
    """Lay out a sheet for the terminal."""
    table = Table(
        title=sheet.title,
        title_justify="left",
        caption=sheet.note or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,  # fits 80 columns
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(sheet.columns):
        numbers = index and column != "why"
        table.add_column(column, justify="right" if numbers else "left", no_wrap=column != "why")
    for row in sheet.rows:
        table.add_row(*row)
    return table
