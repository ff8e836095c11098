"""The benchmark for people: the same tables as Markdown, as one HTML page, or on a terminal."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from model_code.artifacts import atomic_file
from model_code.benchmark import plots
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun, EngineRow
from model_code.benchmark.slices import sliced, worst
from model_code.settings import REFERENCE_ENGINE

NONE = "–"


@dataclass(frozen=True)
class Sheet:
    """One table: the first column is text, the others are numbers as text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """As a Markdown table under its title."""
        lines = [f"### {self.title}", "", f"| {' | '.join(self.columns)} |"]
        lines += ["|---" + "|---:" * (len(self.columns) - 1) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])


def sheets(result: BenchmarkResult) -> tuple[Sheet, ...]:
    """All tables; each fits a terminal of 80 columns."""
    found = [_latency(result), _load(result), _throughput(result), _answers(result)]
    found += [_served(result)] if result.served else []
    return tuple(found + ([_not_run(result)] if result.unavailable else []))


def chosen_line(result: BenchmarkResult, engine: str) -> str:
    """The benchmark's last line: the engine, its speed-up, how near the physical limit it is."""
    row, speedup = result.row(engine), result.speedup(engine)
    fraction = row.floor_fraction if row else None
    share = NONE if fraction is None else f"{100 * fraction:.0f}%"
    return (
        f"chosen {engine}: {speedup or float('nan'):.1f}x {REFERENCE_ENGINE} at batch 1, "
        f"{share} of the arithmetic floor"
    )


def markdown(result: BenchmarkResult) -> str:
    """All sheets and the machine's facts."""
    facts = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    return "\n".join([*(sheet.markdown() for sheet in sheets(result)), f"Machine: {facts}.", ""])


def publish(run: BenchmarkRun, folder: Path) -> None:
    """Write benchmark.md, benchmark.html (self-contained) and the plots beside the raw numbers.

    Raises:
        StorageError: the folder cannot be written.
    """
    pictures = plots.draw_benchmark(run, folder)
    with atomic_file(folder / "benchmark.md") as path:
        path.write_text(markdown(run.result))
    with atomic_file(folder / "benchmark.html") as path:
        path.write_text(html(run, pictures))


def html(run: BenchmarkRun, pictures: Mapping[str, Path]) -> str:
    """One page without script or outside links; pictures are embedded."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("model_code.benchmark", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        result=run.result,
        sheets=sheets(run.result),
        details=_details(run),
        pictures={
            name.replace("_", " "): base64.b64encode(path.read_bytes()).decode()
            for name, path in pictures.items()
        },
    )


def _latency(result: BenchmarkResult) -> Sheet:
    rows = tuple(
        (
            row.engine,
            f"{row.p50_ms:.2f}",
            _between(row, "p50_ms"),
            f"{row.p90_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.p999_ms:.2f}",
            f"{row.mean_ms:.2f}",
            f"{result.speedup(row.engine) or 0.0:.2f}x",
            _number(row.floor_fraction, "{:.0%}"),
        )
        for row in result.rows
    )
    columns = ("engine", "p50", "95% CI", "p90", "p99", "p99.9", "mean", "ratio", "floor")
    ceilings = "; ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in result.ceilings.items())
    note = (
        f"Milliseconds, batch 1, {result.requests} requests an engine in interleaved rounds. "
        f"Ratio: {REFERENCE_ENGINE}'s p50 over its own. Floor: share of the limit that the "
        "engine's multiply-adds set at the highest rate a large matrix product reached in this run "
        f"(GFLOP/s: {ceilings or 'not measured'})."
    )
    return Sheet("Latency", columns, rows, note)


def _load(result: BenchmarkResult) -> Sheet:
    rows = tuple(
        (
            row.engine,
            "yes" if row.stable else "unstable",
            f"{row.open_p50_ms:.2f}",
            f"{row.open_p99_ms:.2f}",
            _number(row.facts.flops and row.facts.flops / 1e6, "{:.0f}"),
            _number(row.facts.size_mib, "{:.1f}"),
            _number(row.facts.peak_mib, "{:.0f}"),
        )
        for row in result.rows
    )
    columns = ("engine", "stable", "open p50", "open p99", "MFLOP", "MiB", "peak MiB")
    note = (
        "Stable: the thirds of the run agree within 10%. Open: milliseconds at "
        f"{result.open_loop_hz:g} requests a second, from the intended send time. MFLOP: of one "
        "window. MiB: the engine's file; peak: memory that loading and the largest batch added."
    )
    notes = "; ".join(f"{row.engine} {row.facts.note}" for row in result.rows if row.facts.note)
    return Sheet("Load and size", columns, rows, f"{note} {notes}".strip())


def _throughput(result: BenchmarkResult) -> Sheet:
    batches = list(result.rows[0].throughput_at)
    rows = tuple(
        (
            row.engine,
            row.facts.precision,
            *(f"{row.throughput_at[batch]:,.0f}" for batch in batches),
        )
        for row in result.rows
    )
    columns = ("engine", "precision", *(f"batch {batch}" for batch in batches))
    return Sheet("Throughput (windows a second)", columns, rows)


def _answers(result: BenchmarkResult) -> Sheet:
    rows = tuple(
        (
            row.engine,
            _number(row.quality.accuracy, "{:.4f}"),
            _number(row.quality.auc, "{:.4f}"),
            _number(row.quality.log_loss, "{:.4f}"),
            _number(row.quality.calibration_error, "{:.3f}"),
            f"{row.quality.flips}" + (f" + {bad} NaN" if (bad := row.quality.non_finite) else ""),
            _number(row.quality.max_abs_dp, "{:.0e}"),
            _number(row.batch_dependence, "{:.0e}"),
        )
        for row in result.rows
    )
    columns = (
        "engine", "accuracy", "AUC", "log loss", "ECE", "flips", "max dp", "batch"
    )  # fmt: skip
    note = (
        f"{result.windows:,} windows of the newest day. ECE: calibration error; dp: |probability "
        f"less that of {REFERENCE_ENGINE}|; flips: decided otherwise; batch: |probability alone "
        "less that in a batch|."
    )
    return Sheet("Answers", columns, rows, note)


def _not_run(result: BenchmarkResult) -> Sheet:
    return Sheet("Not run", ("engine", "why"), tuple(result.unavailable.items()))


def _served(result: BenchmarkResult) -> Sheet:
    served = result.served
    assert served is not None, "called for a served benchmark only"  # noqa: S101
    rows = tuple(
        (row.load, f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}", f"{row.throughput:,.0f}",
         str(row.failed))
        for row in served.loads
    )  # fmt: skip
    note = (
        f"{served.server} serving {served.engine} on the same cores as the client. Of a batch-1 "
        f"request, {served.queue_ms:.2f} ms passed in the queue and {served.compute_ms:.2f} ms in "
        "the engine; the rest is gRPC and the client."
    )
    columns = ("load", "p50 (ms)", "p99 (ms)", "requests a second", "failed")
    return Sheet("Through Triton", columns, rows, note)


def _details(run: BenchmarkRun) -> list[tuple[str, list[Sheet]]]:
    """Slices and worst windows of every engine that answers otherwise than the reference."""
    reference_N = run.probability_N[REFERENCE_ENGINE]
    found = []
    for name, probability_N in run.probability_N.items():
        if name == REFERENCE_ENGINE:
            continue
        slices = sliced(run.context, run.label_N, probability_N, reference_N)
        rows = worst(run.context, run.label_N, probability_N, reference_N, count=10)
        found.append((name, [_sheet("Slices", slices), _sheet("Worst windows", rows)]))
    return found


def _sheet(title: str, rows: tuple[object, ...]) -> Sheet:
    dumped = [row.model_dump() for row in rows]  # type: ignore[attr-defined]
    columns = tuple(dumped[0]) if dumped else ("nothing",)
    return Sheet(title, columns, tuple(tuple(_text(row[key]) for key in columns) for row in dumped))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return NONE if value is None else str(value)


def _between(row: EngineRow, metric: str) -> str:
    interval = row.intervals.get(metric)
    return NONE if interval is None else f"{interval.low:.2f}–{interval.high:.2f}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)
