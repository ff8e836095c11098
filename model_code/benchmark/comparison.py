"""Models of one night side by side: exactness against gradient boosting, and latency.

Which model goes on is decided on the validation windows: the best AUC, and among models within
`LEVEL` of it the fastest. The test windows only describe.

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
from model_code.features.strata import in_words
from model_code.settings import BOOSTING_ROW
from model_code.training.metrics import classification

CONFIDENCE = 0.95
LEVEL = 0.001  # of validation AUC: less is not worth a slower model
SEED = 0
METRICS = ("auc", "average_precision", "log_loss", "accuracy", "calibration_error")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Windows:
    """The test windows with each model's probability of class 1, and gradient boosting's."""

    label_B: npt.NDArray[np.int8]
    context: WindowContext
    probability_B: Mapping[str, Floats]
    boosting_B: Floats


class ModelRow(BaseModel):
    """One model of the night.

    Attributes:
        name: in the specification.
        validation_auc: on the validation windows; it decides.
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
        base_rate: share of positives among them, weighted.
        sampling: how many of each class they are, of how many, where they have weights.
        chosen: name of the model that is built, measured and judged.
        reason: why this one.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    rows: tuple[ModelRow, ...]
    boosting: dict[str, float]
    windows: int
    base_rate: float
    sampling: str = ""
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
        if self.sampling:
            note += f" Test windows: {self.sampling}."
        return "\n".join([*lines, "", note, ""])


def between(bounds: Interval | None) -> str:
    """An interval of AUC differences as text."""
    return "–" if bounds is None else f"{bounds.low:+.4f}..{bounds.high:+.4f}"


def compare(
    test: Windows,
    *,
    boosting: dict[str, float],
    validation_auc: Mapping[str, float],
    thresholds: Mapping[str, float],
    p50_ms: Mapping[str, float],
    seconds: Mapping[str, float],
) -> Comparison:
    """Compare the models of a night and choose one.

    Args:
        test: describes.
        boosting: the baseline's metrics on the test windows.
        validation_auc: decides, by model.
        thresholds: decision threshold by model.
        p50_ms: median latency by model.
        seconds: training time by model.
    """
    best = max(validation_auc.values())
    level = [name for name, auc in validation_auc.items() if best - auc <= LEVEL]
    chosen = min(level, key=lambda name: p50_ms[name])
    scores = ", ".join(f"{name} {validation_auc[name]:.4f}" for name in level)
    reason = f"{chosen} has the best validation AUC ({scores.split()[-1]})"
    if len(level) > 1:
        reason = f"{chosen} is the fastest of those level in validation AUC: {scores}"
    ahead = _ahead(test)
    figures = {
        name: classification(test.label_B, answers_B, thresholds[name], test.context.weight_N)
        for name, answers_B in test.probability_B.items()
    }
    return Comparison(
        rows=tuple(
            ModelRow(
                name=name,
                validation_auc=validation_auc[name],
                **{metric: found[metric] for metric in METRICS},
                ahead=ahead[name],
                p50_ms=p50_ms[name],
                seconds=seconds[name],
            )
            for name, found in figures.items()
        ),
        boosting=boosting,
        windows=len(test.label_B),
        base_rate=float(np.average(test.label_B, weights=test.context.weight_N)),
        sampling=in_words(test.label_B, test.context.weight_N),
        chosen=chosen,
        reason=reason,
    )


def _ahead(test: Windows) -> dict[str, Interval | None]:
    """Interval of AUC, each model's less gradient boosting's, on resampled blocks of windows."""
    other_B = test.boosting_B
    series = loss_series(test.label_B, other_B, weight_N=test.context.weight_N)
    length = blocks.block_length(series, test.context)
    samples = blocks.quality_samples(
        test.label_B,
        {**test.probability_B, BOOSTING_ROW: other_B},
        other_B,
        test.context,
        length=length,
        resamples=RESAMPLES,
        seed=SEED,
    )
    clusters = len(test.label_B) // length
    return {
        name: interval(
            samples[name]["auc"] - samples[BOOSTING_ROW]["auc"], CONFIDENCE, clusters=clusters
        )
        for name in test.probability_B
    }
