"""Plots of a nightly run: latency, ranking quality, calibration, learning.

matplotlib's object interface on the Agg canvas: no display, no global state, safe in threads.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, ScalarFormatter
from numpy.typing import NDArray
from sklearn import metrics as sk

from model_code.artifacts import atomic_file
from model_code.benchmark.result import BenchmarkRun, EngineRow
from model_code.benchmark.slices import quantile
from model_code.settings import REFERENCE_ENGINE
from model_code.training.metrics import average_precision

BINS = 15
# Okabe and Ito (2008): distinguishable for colour-blind readers
COLOURS = ("#000000", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00")
Weights = NDArray[np.float64] | None  # None: all windows weigh the same
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))


class Epoch(Protocol):
    """The fields of `training.EpochMetrics` that the learning curve uses."""

    @property
    def epoch(self) -> int:
        """Number of the epoch, as the training counts it."""
        ...

    @property
    def train_loss(self) -> float:
        """Mean cross-entropy over the epoch, nats."""
        ...

    @property
    def validation_loss(self) -> float:
        """The same on validation windows."""
        ...

    @property
    def validation_auc(self) -> float:
        """Area under the validation ROC curve."""
        ...


def draw_benchmark(run: BenchmarkRun, folder: Path) -> dict[str, Path]:
    """Plot latency, throughput, accuracy against latency, and the quality curves of a benchmark.

    Args:
        run: of `measure.benchmark`.
        folder: PNG files go here.

    Returns:
        Path by plot: latency_ecdf, throughput, accuracy_latency, roc, precision_recall,
        calibration.

    Raises:
        StorageError: the folder cannot be written.
    """
    weight_N = run.context.weight_N
    finite = {
        name: values for name, values in run.probability_N.items() if np.isfinite(values).all()
    }
    return {
        "latency_ecdf": latency_ecdf(run.latency_ms_R, folder / "latency_ecdf.png"),
        "throughput": throughput(run.result.rows, folder / "throughput.png"),
        "accuracy_latency": accuracy_latency(run.result.rows, folder / "accuracy_latency.png"),
        "roc": roc(run.label_N, finite, folder / "roc.png", weight_N),
        "precision_recall": precision_recall(
            run.label_N, finite, folder / "precision_recall.png", weight_N
        ),
        "calibration": calibration(
            run.label_N, run.probability_N[REFERENCE_ENGINE], folder / "calibration.png", weight_N
        ),
    }


def latency_ecdf(latency_ms_R: Mapping[str, NDArray[np.float64]], path: Path) -> Path:
    """Share of batch-1 requests answered within x milliseconds, by engine."""

    def draw(axes: Axes) -> None:
        for style, (name, values) in zip(_styles(), latency_ms_R.items(), strict=False):
            axes.ecdf(values, label=f"{name} (p50 {np.median(values):.2f} ms)", **style)
        lowest = min(values.min() for values in latency_ms_R.values())
        highest = max(np.quantile(values, 0.995) for values in latency_ms_R.values())
        axes.set(
            xscale="log",
            xlim=(0.95 * lowest, 1.1 * highest),
            title="Latency of one window",
            xlabel="latency (ms)",
            ylabel="share of requests",
        )
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        axes.legend(loc="lower right")

    return plot(path, draw)


def throughput(rows: Sequence[EngineRow], path: Path) -> Path:
    """Windows per second against batch size, by engine."""

    def draw(axes: Axes) -> None:
        for style, row in zip(_styles(), rows, strict=False):
            batches = [int(batch) for batch in row.throughput_at]
            rates = list(row.throughput_at.values())
            axes.plot(batches, rates, marker="o", label=row.engine, **style)
        axes.set(
            xscale="log",
            ylim=(0, None),
            title="Throughput",
            xlabel="batch size (windows)",
            ylabel="windows per second",
        )
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.minorticks_off()
        axes.legend(loc="best")

    return plot(path, draw)


def accuracy_latency(rows: Sequence[EngineRow], path: Path) -> Path:
    """Accuracy against batch-1 median latency; the upper left is best."""

    def draw(axes: Axes) -> None:
        for style, row in zip(_styles(), rows, strict=False):
            if row.quality.accuracy is None:
                continue
            axes.plot(row.p50_ms, row.quality.accuracy, "o", color=style["color"], label=row.engine)
            axes.annotate(
                row.engine,
                (row.p50_ms, row.quality.accuracy),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set(
            title="Accuracy against latency", xlabel="p50 of one window (ms)", ylabel="accuracy"
        )
        axes.margins(x=0.18, y=0.2)

    return plot(path, draw)


def roc(
    label_N: NDArray[np.integer],
    probability_N: Mapping[str, NDArray[np.float64]],
    path: Path,
    weight_N: Weights = None,
) -> Path:
    """Receiver operating characteristic, by engine."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="random (AUC 0.5)")
        for style, (name, values) in zip(_styles(), probability_N.items(), strict=False):
            false_positive, true_positive, _ = sk.roc_curve(label_N, values, sample_weight=weight_N)
            area = sk.auc(false_positive, true_positive)
            axes.plot(false_positive, true_positive, label=f"{name} (AUC {area:.4f})", **style)
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1.01),
            aspect="equal",
            title="ROC, newest day",
            xlabel="false positive rate",
            ylabel="true positive rate",
        )
        axes.legend(loc="lower right")

    return plot(path, draw)


def precision_recall(
    label_N: NDArray[np.integer],
    probability_N: Mapping[str, NDArray[np.float64]],
    path: Path,
    weight_N: Weights = None,
) -> Path:
    """Precision against recall, by engine, with the base rate as baseline."""

    def draw(axes: Axes) -> None:
        base = float(np.average(label_N, weights=weight_N))
        axes.axhline(base, color="0.7", linewidth=1, label=f"base rate ({base:.3f})")
        for style, (name, values) in zip(_styles(), probability_N.items(), strict=False):
            precision, recall, _ = sk.precision_recall_curve(
                label_N, values, sample_weight=weight_N
            )
            average = average_precision(label_N, values, weight_N)
            axes.plot(recall, precision, label=f"{name} (AP {average:.4f})", **style)
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1.01),
            title="Precision and recall, newest day",
            xlabel="recall",
            ylabel="precision",
        )
        axes.legend(loc="best")

    return plot(path, draw)


def calibration(
    label_N: NDArray[np.integer],
    probability_N: NDArray[np.float64],
    path: Path,
    weight_N: Weights = None,
) -> Path:
    """Observed rate against predicted probability in equally filled bins, over a histogram."""

    def draw(axes: Axes) -> None:
        observed, predicted = _by_bin(label_N, probability_N, weight_N)
        counts = axes.twinx()
        edges = [edge / 40 for edge in range(41)]
        counts.hist(probability_N, bins=edges, weights=weight_N, color="0.85")
        counts.set_ylabel("windows (bars)")
        counts.set_zorder(axes.get_zorder() - 1)
        axes.patch.set_visible(False)
        axes.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle="--", label="perfect")
        axes.plot(predicted, observed, color=COLOURS[2], marker="o", label=REFERENCE_ENGINE)
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1.01),
            title="Calibration, newest day",
            xlabel="predicted probability",
            ylabel="observed rate",
        )
        axes.legend(loc="upper left")

    return plot(path, draw)


def _by_bin(
    label_N: NDArray[np.integer], probability_N: NDArray[np.float64], weight_N: Weights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Observed rate and mean probability in equally filled bins."""
    edges = quantile(probability_N, [place / BINS for place in range(1, BINS)], weight_N)
    bin_N = np.searchsorted(edges, probability_N)
    share_N = np.ones(len(label_N)) if weight_N is None else weight_N
    filled = np.bincount(bin_N, share_N) > 0
    total, observed, predicted = (
        np.bincount(bin_N, values)[filled]
        for values in (share_N, share_N * label_N, share_N * probability_N)
    )
    return observed / total, predicted / total


def learning_curve(history: Sequence[Epoch], path: Path) -> Path:
    """Training and validation loss, and validation AUC, by epoch."""

    def draw(axes: Axes) -> None:
        epochs = [row.epoch for row in history]
        losses = [
            ("training loss", [row.train_loss for row in history], COLOURS[0]),
            ("validation loss", [row.validation_loss for row in history], COLOURS[2]),
        ]
        lines = [
            axes.plot(epochs, values, marker="o", color=colour, label=label)[0]
            for label, values, colour in losses
        ]
        axes.set(title="Learning curve", xlabel="epoch", ylabel="loss (nats)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        right = axes.twinx()
        areas = [row.validation_auc for row in history]
        lines += right.plot(
            epochs, areas, marker="s", linestyle="--", color=COLOURS[5], label="validation AUC"
        )
        right.set_ylabel("AUC", color=COLOURS[5])
        right.tick_params(axis="y", colors=COLOURS[5])
        best = int(np.argmax(areas))
        right.annotate(
            f"best {areas[best]:.4f}",
            (epochs[best], areas[best]),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            color=COLOURS[5],
        )
        right.margins(y=0.15)
        axes.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)

    return plot(path, draw)


def _styles() -> Iterator[dict[str, Any]]:
    # curves of engines often coincide: from thick to thin, so that none hides another
    for index, (style, colour) in enumerate(itertools.product(STYLES, COLOURS)):
        yield {"color": colour, "linestyle": style, "linewidth": max(0.8, 3.0 - 0.2 * index)}


def plot(path: Path, draw: Callable[[Axes], None]) -> Path:
    """Write one diagram as PNG; `draw` fills its axes."""
    figure = Figure(figsize=(7.2, 5.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.3)
    axes.spines["top"].set_visible(False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
