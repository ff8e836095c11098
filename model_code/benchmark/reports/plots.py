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
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from sklearn import metrics as sk

from model_code.artifacts import atomic_file
from model_code.benchmark.result import BenchmarkRun, EngineRow
from model_code.benchmark.slices import quantile
from model_code.settings import BOOSTING_ROW, CHAMPION_ROW, REFERENCE_ENGINE
from model_code.training.metrics import average_precision

BINS = 15
# Okabe and Ito (2008): distinguishable for colour-blind readers
COLOURS = ("#000000", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00")
Weights = NDArray[np.float64] | None  # None: all windows weigh the same
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MARKERS = "osD^vPX"
WIDE = 5.0  # from this ratio of the largest to the smallest on, latencies need a logarithmic axis


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
            run.label_N,
            {REFERENCE_ENGINE: run.probability_N[REFERENCE_ENGINE]},
            folder / "calibration.png",
            weight_N,
        ),
    }


def draw_candidate(run: BenchmarkRun, engine: str, folder: Path) -> dict[str, Path]:
    """Plot one engine's answers and latency beside the champion's and gradient boosting's.

    Args:
        run: of `measure.benchmark`.
        engine: to be approved.
        folder: PNG files go here.

    Returns:
        Path by plot: calibration, precision_recall, roc, latency_ecdf; empty if the engine was
        not measured or gave an answer that is not finite.

    Raises:
        StorageError: the folder cannot be written.
    """
    names = {engine: "candidate", CHAMPION_ROW: "champion"}
    answers = {names[key]: run.probability_N[key] for key in names if key in run.probability_N}
    if run.boosting_N is not None:
        answers[BOOSTING_ROW] = run.boosting_N
    finite = {name: values for name, values in answers.items() if np.isfinite(values).all()}
    if names[engine] not in finite:
        return {}
    label_N, weight_N = run.label_N, run.context.weight_N
    timed = {names[key]: run.latency_ms_R[key] for key in names if key in run.latency_ms_R}
    return {
        "calibration": calibration(label_N, finite, folder / "calibration.png", weight_N),
        "precision_recall": precision_recall(
            label_N, finite, folder / "precision_recall.png", weight_N
        ),
        "roc": roc(label_N, finite, folder / "roc.png", weight_N),
        "latency_ecdf": latency_ecdf(timed, folder / "latency_ecdf.png"),
    }


def latency_ecdf(latency_ms_R: Mapping[str, NDArray[np.float64]], path: Path) -> Path:
    """Share of batch-1 requests answered within x milliseconds, by engine."""

    def draw(axes: Axes) -> None:
        for style, (name, values) in zip(_styles(), latency_ms_R.items(), strict=False):
            axes.ecdf(values, label=f"{name} (p50 {np.median(values):.2f} ms)", **style)
        lowest = min(values.min() for values in latency_ms_R.values())
        highest = max(np.quantile(values, 0.995) for values in latency_ms_R.values())
        if highest > WIDE * lowest:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(
            xlim=(0.95 * lowest, 1.1 * highest),
            title="Latency of one window",
            xlabel="latency (ms)",
            ylabel="share of requests",
        )
        _legend(axes)

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
        _legend(axes)

    return plot(path, draw)


def accuracy_latency(rows: Sequence[EngineRow], path: Path) -> Path:
    """Accuracy against batch-1 median latency; the upper left is best."""

    def draw(axes: Axes) -> None:
        for style, marker, row in zip(_styles(), itertools.cycle(MARKERS), rows, strict=False):
            if row.quality.accuracy is None:
                continue
            axes.plot(
                row.p50_ms,
                row.quality.accuracy,
                linestyle="",
                marker=marker,
                markersize=8,
                color=style["color"],
                label=row.engine,
            )
        axes.set(
            title="Accuracy against latency", xlabel="p50 of one window (ms)", ylabel="accuracy"
        )
        axes.margins(x=0.1, y=0.15)
        _legend(axes)

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
            title="ROC, newest day",
            xlabel="false positive rate",
            ylabel="true positive rate",
        )
        _legend(axes)

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
        _legend(axes)

    return plot(path, draw)


def calibration(
    label_N: NDArray[np.integer],
    probability_N: Mapping[str, NDArray[np.float64]],
    path: Path,
    weight_N: Weights = None,
) -> Path:
    """Observed rate against predicted probability in equally filled bins, by engine.

    The bars are a histogram of the first engine's probabilities.
    """

    def draw(axes: Axes) -> None:
        first_N = next(iter(probability_N.values()))
        binned = {
            name: _by_bin(label_N, values, weight_N) for name, values in probability_N.items()
        }
        highest = max(float(np.max(both)) for both in binned.values())
        limit = min(1.0, 1.1 * highest)  # opportunities are rare: most of 0 to 1 is often empty
        counts = axes.twinx()
        edges = np.linspace(0.0, limit, 41).tolist()
        counts.hist(first_N, bins=edges, weights=weight_N, color="0.9")
        counts.set_ylabel("windows (bars)")
        counts.set_zorder(axes.get_zorder() - 1)
        axes.patch.set_visible(False)
        axes.plot([0, 1], [0, 1], color="0.5", linewidth=1, label="perfect")
        for style, (name, (observed, predicted)) in zip(_styles(), binned.items(), strict=False):
            axes.plot(predicted, observed, marker="o", markersize=4, label=name, **style)
        axes.set(
            xlim=(0, limit),
            ylim=(0, limit),
            title="Calibration, newest day",
            xlabel="predicted probability",
            ylabel="observed rate",
        )
        _legend(axes)

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
        axes.figure.legend(handles=lines, loc="outside lower center", ncols=2, fontsize=9)

    return plot(path, draw)


def _styles() -> Iterator[dict[str, Any]]:
    # curves of engines often coincide: from thick to thin, so that none hides another; neighbours
    # differ in colour and in dashes, so that they differ on paper too
    for index in range(len(COLOURS) * len(STYLES)):
        row, column = divmod(index, len(COLOURS))
        yield {
            "color": COLOURS[column],
            "linestyle": STYLES[(column + row) % len(STYLES)],
            "linewidth": max(0.8, 2.5 - 0.2 * index),
        }


def _legend(axes: Axes) -> None:
    """Name the curves below the diagram, where they cover nothing."""
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)


def plot(path: Path, draw: Callable[[Axes], None]) -> Path:
    """Write one diagram as PNG; `draw` fills its axes.

    Pages show it about 5.4 inches wide, so that its text is 9 points or larger there.
    """
    figure = Figure(figsize=(5.4, 3.75), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.3)
    axes.spines["top"].set_visible(False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")
    return path
