"""Sheets of latency: batch 1 in a closed loop and at a fixed arrival rate, with intervals."""

from model_code.benchmark.reports.sheet import NONE, Sheet, ms, number
from model_code.benchmark.result import BenchmarkResult, BesideRow, EngineRow
from model_code.benchmark.significance import LATENCY_METRICS, Interval
from model_code.settings import REFERENCE_ENGINE

DESIGNS = " of the design's network"


def latency(result: BenchmarkResult) -> Sheet:
    """Quantiles at batch 1; engines of the design's network last."""
    reference, whose = _reference(result)
    rows = [_latency_row(row, row.intervals.get("p50_ms"), reference) for row in result.rows] + [
        _latency_row(beside, beside.interval, reference) for beside in result.beside
    ]
    columns = ("engine", "p50", "95% CI", "p90", "p99", "p99.9", "mean", "ratio", "floor")
    ceilings = "; ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in result.ceilings.items())
    note = (
        f"Milliseconds, batch 1, {result.requests} requests per engine in interleaved rounds. "
        f"Ratio: p50 of {REFERENCE_ENGINE}{whose} divided by the engine's. Floor: time of the "
        "engine's multiply-adds at the highest rate of a large matrix product in this run, as a "
        f"share of its p50 (GFLOP/s: {ceilings or 'not measured'})."
    )
    return Sheet("Latency", columns, tuple(rows), note)


def _gpu(mib: float | None) -> str:
    return "" if mib is None else f" + {mib:.0f} GPU"


def load(result: BenchmarkResult) -> Sheet:
    """Stability, the open loop, arithmetic, size and memory."""
    rows = tuple(
        (
            row.engine,
            "yes" if row.stable else "unstable",
            ms(row.open_p50_ms),
            ms(row.open_p99_ms),
            number(row.facts.flops and row.facts.flops / 1e6, "{:.3g}"),
            number(row.facts.size_mib, "{:.1f}"),
            number(row.facts.peak_mib, "{:.0f}") + _gpu(row.facts.gpu_mib),
        )
        for row in result.rows
    )
    columns = ("engine", "stable", "open p50", "open p99", "MFLOP", "MiB", "peak MiB")
    note = (
        "Stable: the medians of the run's thirds agree within 10%. Open: milliseconds at "
        f"{result.open_loop_hz:g} requests/s, from the intended send time. MFLOP: per window. "
        "MiB: size of the engine file. Peak: memory added by loading and the largest batch."
    )
    notes = [f"{row.engine} {row.facts.note}." for row in result.rows if row.facts.note]
    return Sheet("Load and size", columns, rows, " ".join([note, *notes]))


def intervals(result: BenchmarkResult) -> Sheet:
    """Intervals of every latency metric."""
    rows = tuple(
        (row.engine, *(_range(row.intervals.get(metric)) for metric in LATENCY_METRICS))
        for row in result.rows
    )
    columns = ("engine", "mean", "p50", "p90", "p99", "p99.9")  # as in LATENCY_METRICS
    return Sheet("95% confidence intervals of the latencies (ms)", columns, rows)


def chosen_line(result: BenchmarkResult, engine: str) -> str:
    """The benchmark's last line: the engine, its speed-up, its share of the arithmetic floor."""
    row, (reference, whose) = result.row(engine), _reference(result)
    speedup = reference / row.p50_ms if row and reference else float("nan")
    fraction = row.floor_fraction if row else None
    share = NONE if fraction is None else f"{100 * fraction:.0f}%"
    return (
        f"chosen {engine}: {speedup:.1f}x {REFERENCE_ENGINE}{whose} at batch 1, "
        f"{share} of the arithmetic floor"
    )


def _reference(result: BenchmarkResult) -> tuple[float | None, str]:
    """Median that ratios refer to, and whose it is: the design's network if it was timed."""
    design = result.design_p50_ms
    if design is not None:
        return design, DESIGNS
    row = result.row(REFERENCE_ENGINE)
    return row.p50_ms if row else None, ""


def _latency_row(
    row: EngineRow | BesideRow, bounds: Interval | None, reference: float | None
) -> tuple[str, ...]:
    return (
        row.engine,
        ms(row.p50_ms),
        _range(bounds),
        ms(row.p90_ms),
        ms(row.p99_ms),
        ms(row.p999_ms),
        ms(row.mean_ms),
        number(reference and reference / row.p50_ms, "{:.2f}x"),
        number(row.floor_fraction, "{:.0%}"),
    )


def _range(bounds: Interval | None) -> str:
    return NONE if bounds is None else f"{ms(bounds.low)}–{ms(bounds.high)}"
