"""Picture of a night's models: exactness over latency."""

from pathlib import Path

from matplotlib.figure import Figure

from model_code.artifacts import atomic_file
from model_code.benchmark.comparison import Comparison


def draw_frontier(comparison: Comparison, path: Path) -> Path:
    """Draw AUC over the median latency of a single window, one point per model.

    Raises:
        StorageError: the file cannot be written.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row in comparison.rows:
        chosen = row.name == comparison.chosen
        axes.plot(row.p50_ms, row.auc, "o", markersize=10 if chosen else 7)
        axes.annotate(
            f"{row.name} (chosen)" if chosen else row.name,
            (row.p50_ms, row.auc),
            xytext=(6, 6),
            textcoords="offset points",
        )
    axes.axhline(comparison.boosting["auc"], color="grey", linestyle="--")
    axes.annotate(
        "gradient boosting (baseline)",
        (0.99, comparison.boosting["auc"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, -12),
        textcoords="offset points",
        ha="right",
        color="grey",
    )
    axes.set_xscale("log")
    axes.set_xlabel("median latency of a single window (ms, ONNX Runtime FP32)")
    axes.set_ylabel(f"AUC on {comparison.windows:,} test windows")
    axes.set_title("Models of this night")
    axes.grid(visible=True, alpha=0.3)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path
