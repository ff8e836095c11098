"""Models of one night side by side: exactness against gradient boosting, and latency.

Which model goes on is decided on the validation windows: the best AUC, and among models that are
not clearly worse the fastest. The test windows only describe.

Shapes: B windows, R timed requests.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from model_code.benchmark import blocks
from model_code.benchmark.significance import RESAMPLES, Interval, interval, loss_series
from model_code.benchmark.slices import WindowContext
from model_code.training.metrics import classification

CONFIDENCE = 0.95
SEED = 0
METRICS = ("auc", "average_precision", "log_loss", "accuracy", "calibration_error")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Windows:
    """One part's windows with each model's probability of class 1."""

    label_B: npt.NDArray[np.int8]
    context: WindowContext
    probability_B: Mapping[str, Floats]


class ModelRow(BaseModel):
    """One model of the night.

    Attributes:
        name: in the specification.
        validation_auc: on the validation windows; it decides.
        behind: 95% interval of validation AUC, this model's less the best one's; None for the best.
        auc: on the test windows, as everything below.
        average_precision: area under precision over recall.
        log_loss: nats per window.
        accuracy: at the model's threshold.
        calibration_error: expected, 15 bins.
        ahead: 95% interval of AUC, this model's less gradient boosting's, paired.
        p50_ms: median latency of a single window, ONNX Runtime FP32.
        seconds: of training.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    name: str
    validation_auc: float
    behind: Interval | None
    auc: float
    average_precision: float
    log_loss: float
    accuracy: float
    calibration_error: float
    ahead: Interval | None
    p50_ms: float
    seconds: float


class Comparison(BaseModel):
    """All models, and the one that goes on.

    Attributes:
        rows: in the specification's order.
        boosting: gradient boosting's metrics on the test windows.
        windows: test windows.
        base_rate: share of positives among them.
        chosen: name of the model that is built, measured and judged.
        reason: why this one.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    rows: tuple[ModelRow, ...]
    boosting: dict[str, float]
    windows: int
    base_rate: float
    chosen: str
    reason: str

    def markdown(self) -> str:
        """As a Markdown table with gradient boosting below."""
        lines = [
            "| model | AUC | against boosting (95%) | AP | log loss | p50 (ms) | training (s) |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for row in self.rows:
            name = f"**{row.name}**" if row.name == self.chosen else row.name
            lines.append(
                f"| {name} | {row.auc:.4f} | {between(row.ahead)} | {row.average_precision:.4f} "
                f"| {row.log_loss:.4f} | {row.p50_ms:.3f} | {row.seconds:.0f} |"
            )
        found = self.boosting
        lines.append(
            f"| gradient boosting (baseline) | {found['auc']:.4f} | | "
            f"{found['average_precision']:.4f} | {found['log_loss']:.4f} | | |"
        )
        note = f"{self.windows:,} test windows, {self.base_rate:.1%} positive. {self.reason}."
        return "\n".join([*lines, "", note, ""])


def between(bounds: Interval | None) -> str:
    """An interval of AUC differences as text."""
    return "–" if bounds is None else f"{bounds.low:+.4f}..{bounds.high:+.4f}"


def compare(
    validation: Windows,
    test: Windows,
    *,
    boosting_B: Floats,
    boosting: dict[str, float],
    thresholds: Mapping[str, float],
    p50_ms: Mapping[str, float],
    seconds: Mapping[str, float],
) -> Comparison:
    """Compare the models of a night and choose one.

    Args:
        validation: decides.
        test: describes.
        boosting_B: the baseline's probabilities of the test windows.
        boosting: the baseline's metrics on them.
        thresholds: decision threshold by model.
        p50_ms: median latency by model.
        seconds: training time by model.
    """
    names = list(test.probability_B)
    scores = {
        name: classification(validation.label_B, validation.probability_B[name])["auc"]
        for name in names
    }
    best = max(names, key=lambda name: (scores[name], -p50_ms[name]))
    behind = _differences(validation, validation.probability_B[best])
    ahead = _differences(test, boosting_B)
    level = [name for name in names if name == best or _may_be_level(behind[name])]
    chosen = min(level, key=lambda name: p50_ms[name])
    reason = f"{chosen} has the best validation AUC ({scores[chosen]:.4f})"
    if len(level) > 1:
        reason = f"{chosen} is the fastest of those level in validation AUC: " + ", ".join(
            f"{name} {scores[name]:.4f}" for name in level
        )
    figures = {
        name: classification(test.label_B, test.probability_B[name], thresholds[name])
        for name in names
    }
    return Comparison(
        rows=tuple(
            ModelRow(
                name=name,
                validation_auc=scores[name],
                behind=None if name == best else behind[name],
                **{metric: figures[name][metric] for metric in METRICS},
                ahead=ahead[name],
                p50_ms=p50_ms[name],
                seconds=seconds[name],
            )
            for name in names
        ),
        boosting=boosting,
        windows=len(test.label_B),
        base_rate=float(test.label_B.mean()),
        chosen=chosen,
        reason=reason,
    )


def _may_be_level(behind: Interval | None) -> bool:
    return behind is not None and behind.high >= 0.0


def _differences(part: Windows, other_B: Floats) -> dict[str, Interval | None]:
    """Interval of AUC, each model's less the other's, on resampled blocks of windows."""
    series = loss_series(part.label_B, other_B)
    length = blocks.block_length(series, part.context)
    samples = blocks.quality_samples(
        part.label_B,
        {**part.probability_B, OTHER: other_B},
        other_B,
        part.context,
        length=length,
        resamples=RESAMPLES,
        seed=SEED,
    )
    clusters = len(part.label_B) // length
    return {
        name: interval(samples[name]["auc"] - samples[OTHER]["auc"], CONFIDENCE, clusters=clusters)
        for name in part.probability_B
    }


OTHER = "compared with"
