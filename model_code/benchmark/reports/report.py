"""The benchmark report: the same tables as Markdown, as one HTML page, or on a terminal."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from model_code.artifacts import atomic_file
from model_code.benchmark.reports import plots
from model_code.benchmark.reports.latency_sheets import chosen_line, intervals, latency, load
from model_code.benchmark.reports.selection import Selection, faster, opening
from model_code.benchmark.reports.sheet import NONE, Sheet, number, text
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun
from model_code.benchmark.roster import FAILED
from model_code.benchmark.significance import Paired
from model_code.benchmark.slices import sliced, worst
from model_code.benchmark.weakest import EVENTS, weakest
from model_code.pages.page import environment, inline
from model_code.settings import REFERENCE_ENGINE

SIMULATED = "> **SIMULATED DATA.** The results say nothing about a real market.\n\n"
TEXT_COLUMNS = {"verdict", "why", "reason"}
CAPTIONS = {
    "latency_ecdf": "Share of batch-1 requests answered within a latency",
    "throughput": "Windows per second by batch size",
    "accuracy_latency": "Accuracy against the median latency: the upper left is best",
    "roc": "True positives against false positives",
    "precision_recall": "Precision against recall",
    "calibration": "How often an opportunity came when the model said p",
}


def sheets(result: BenchmarkResult) -> tuple[Sheet, ...]:
    """All tables; each fits a terminal of 80 columns."""
    found = [latency(result), load(result), _throughput(result), _predictions(result)]
    found += [_decisions(result)]
    found += [_paired(result)] if any(row.paired for row in result.rows) else []
    found += [_served(result)] if result.served else []
    return tuple(found + ([_not_run(result)] if result.unavailable else []))


def heading(result: BenchmarkResult) -> str:
    """The warning above all tables; empty for ticks of a real market."""
    return SIMULATED if result.simulated else ""


def verdicts(rows: Iterable[tuple[str, str, str]]) -> Sheet:
    """The gate's verdict on each judged engine: (engine, verdict, reason)."""
    note = "Only engines that Triton can serve are judged and staged."
    return Sheet("Verdicts", ("engine", "verdict", "reason"), tuple(rows), note)


def markdown(result: BenchmarkResult, selection: Selection | None = None) -> str:
    """All sheets, the intervals and the machine; after the gate the choice first, and marked."""
    found = (*sheets(result), intervals(result))
    first: list[str] = []
    if selection is not None:
        first = [opening(result, selection)]
        found = tuple(sheet.marked(selection.engine, selection.mark) for sheet in found)
    return "\n".join([*first, *(sheet.markdown() for sheet in (*found, _machine(result)))])


def run_markdown(run: BenchmarkRun, selection: Selection | None = None) -> str:
    """`markdown`, and where the model ranks worst."""
    return f"{markdown(run.result, selection)}\n{_weakest(run).markdown()}"


def publish(run: BenchmarkRun, folder: Path) -> None:
    """Write benchmark.md and the plots beside the raw numbers.

    Raises:
        StorageError: the folder cannot be written.
    """
    plots.draw_benchmark(run, folder)
    with atomic_file(folder / "benchmark.md") as path:
        path.write_text(heading(run.result) + run_markdown(run))


def judged_pages(run: BenchmarkRun, folder: Path, selection: Selection) -> dict[str, str]:
    """The report after the gate, by file name: it begins with the chosen engine.

    Args:
        run: the measured run.
        folder: of `publish`, with the plots.
        selection: the gate's.
    """
    return {
        "benchmark.md": heading(run.result) + run_markdown(run, selection),
        "benchmark.html": html(run, folder, selection),
    }


def html(run: BenchmarkRun, folder: Path, selection: Selection) -> str:
    """One page without scripts or external links; the folder's plots are embedded."""
    result, row = run.result, run.result.row(selection.engine)
    return (
        environment(Path(__file__).parent)
        .get_template("report.html.j2")
        .render(
            result=result,
            row=row,
            selection=selection,
            line=chosen_line(result, selection.engine).partition(": ")[2],
            days=_days(run),
            faster=faster(result, selection),
            sheets=(*sheets(result), intervals(result), _weakest(run)),
            details=_details(run),
            pictures={
                CAPTIONS.get(path.stem, path.stem.replace("_", " ")): inline(path.read_bytes())
                for path in sorted(folder.glob("*.png"))
            },
            text_columns=TEXT_COLUMNS,
        )
    )


def _machine(result: BenchmarkResult) -> Sheet:
    return Sheet("Machine", ("what", "value"), tuple(result.machine.items()))


def _days(run: BenchmarkRun) -> str:
    """The dates of the windows, UTC: one, or the first and the last."""
    stamps = run.context.timestamp_ns_N
    ends = [f"{np.datetime64(int(stamp), 'ns'):.10}" for stamp in (stamps.min(), stamps.max())]
    return " to ".join(dict.fromkeys(ends))


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
    columns = ("engine", "precision", *(str(batch) for batch in batches))
    return Sheet("Throughput (windows/s, by batch size)", columns, rows)


def _predictions(result: BenchmarkResult) -> Sheet:
    rows = tuple(
        (
            row.engine,
            number(row.quality.accuracy, "{:.4f}"),
            number(row.quality.auc, "{:.4f}"),
            number(row.quality.log_loss, "{:.4f}"),
            number(row.quality.calibration_error, "{:.3f}"),
            f"{row.quality.flips}" + (f" + {bad} NaN" if (bad := row.quality.non_finite) else ""),
            _difference(row.quality.max_abs_dp),
            _difference(row.batch_dependence),
        )
        for row in result.rows
    )
    columns = (
        "engine", "accuracy", "AUC", "log loss", "ECE", "flips", "max dp", "batch"
    )  # fmt: skip
    note = (
        f"{result.windows:,} windows of the newest day{_sampled(result)}. "
        f"ECE: expected calibration error. Flips: decisions that differ from {REFERENCE_ENGINE}. "
        f"Max dp: largest probability difference from {REFERENCE_ENGINE}. Batch: largest "
        "probability difference between a window alone and in a batch."
    )
    return Sheet("Predictions", columns, rows, note)


def _sampled(result: BenchmarkResult) -> str:
    return f": {result.sampling}" if result.sampling else ""


def _decisions(result: BenchmarkResult) -> Sheet:
    rows = tuple(
        (
            row.engine,
            f"{result.threshold_of(row.engine):.3f}",
            number(row.quality.balanced_accuracy, "{:.4f}"),
            number(row.quality.mcc, "{:.4f}"),
            number(row.quality.precision, "{:.4f}"),
            number(row.quality.recall, "{:.4f}"),
            number(row.quality.average_precision, "{:.4f}"),
            number(row.quality.average_precision_lift, "{:.2f}x"),
        )
        for row in result.rows
    )
    columns = ("engine", "from", "balanced", "MCC", "precis.", "recall", "AP", "lift")
    rate = result.rows[0].quality.base_rate
    note = (
        "From: probability from which a window counts as an opportunity, chosen on the validation "
        "windows. Balanced: mean of both classes' recalls. MCC: Matthews correlation. AP: average "
        "precision; lift: AP over the share of opportunities, "
        f"{number(rate, '{:.2%}')} of the windows."
    )
    return Sheet("Decisions and ranks", columns, rows, note)


def _paired(result: BenchmarkResult) -> Sheet:
    rows = tuple(
        (
            row.engine,
            _difference(row.quality.p99_abs_dp),
            str(pair.worse),
            str(pair.better),
            f"{pair.p_value:.2g}",
            _points(pair, "accuracy"),
            _points(pair, "auc"),
        )
        for row in result.rows
        if (pair := row.paired) is not None
    )
    columns = ("engine", "p99 dp", "worse", "better", "p", "accuracy", "AUC")
    note = (
        f"p99 dp: 99th percentile of the probability difference from {REFERENCE_ENGINE}. Worse, "
        f"better: windows that only {REFERENCE_ENGINE}, only the engine decides correctly. p: "
        "McNemar's exact test of the two counts, which assumes independent windows. Accuracy, "
        "AUC: 95% interval of the difference in percentage points, from resampled blocks of "
        "neighbouring windows; entirely below 0 means worse."
    )
    return Sheet(f"Paired with {REFERENCE_ENGINE}", columns, rows, note)


def _weakest(run: BenchmarkRun) -> Sheet:
    found, compared = weakest(
        run.context, run.label_N, run.probability_N[REFERENCE_ENGINE], run.boosting_N
    )
    rows = tuple(
        (
            f"{row.symbol}, {row.name}",
            f"{row.windows:,}",
            f"{row.base_rate:.2%}",
            f"{row.auc:.4f}",
            number(row.boosting_auc, "{:.4f}"),
        )
        for row in found
    )
    note = (
        f"The lowest AUC of {REFERENCE_ENGINE} among {compared} slices: each instrument by hour "
        f"and by quartile of its volatility, with at least {EVENTS} windows of each label. The "
        "lowest of many is low partly by chance."
    )
    return Sheet("Weakest slices", ("slice", "windows", "positive", "AUC", "boosting"), rows, note)


def _points(pair: Paired, metric: str) -> str:
    bounds = pair.differences.get(metric)
    return NONE if bounds is None else f"{100 * bounds.low:.2f}..{100 * bounds.high:.2f}"


def _not_run(result: BenchmarkResult) -> Sheet:
    rows = tuple(
        (name, reason if reason.startswith(FAILED) else f"not run: {reason}")
        for name, reason in result.unavailable.items()
    )
    return Sheet("Not run", ("engine", "reason"), rows)


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
        f"request, {served.queue_ms:.2f} ms is queue time and {served.compute_ms:.2f} ms is engine "
        "time; the rest is gRPC and the client."
    )
    columns = ("load", "p50 (ms)", "p99 (ms)", "requests/s", "failed")
    return Sheet("Through Triton", columns, rows, note)


def _details(run: BenchmarkRun) -> list[tuple[str, list[Sheet]]]:
    """Slices and worst windows of every engine except the reference."""
    reference_N = run.probability_N[REFERENCE_ENGINE]
    found = []
    for name, probability_N in run.probability_N.items():
        if name == REFERENCE_ENGINE:
            continue
        thresholds = run.result.threshold_of(name), run.result.threshold
        slices = sliced(run.context, run.label_N, probability_N, reference_N, thresholds)
        rows = worst(
            run.context, run.label_N, probability_N, reference_N, 10, thresholds=thresholds
        )
        found.append((name, [_sheet("Slices", slices), _sheet("Worst windows", rows)]))
    return found


def _sheet(title: str, rows: tuple[object, ...]) -> Sheet:
    dumped = [row.model_dump() for row in rows]  # type: ignore[attr-defined]
    columns = tuple(dumped[0]) if dumped else ("none",)
    return Sheet(title, columns, tuple(tuple(text(row[key]) for key in columns) for row in dumped))


def _difference(value: float | None) -> str:
    """A probability difference: four digits from 0.001 up, below that its order of magnitude."""
    return number(value, "{:.4f}" if value is not None and value >= 1e-3 else "{:.0e}")
