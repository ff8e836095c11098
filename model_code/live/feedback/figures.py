"""Figures of a window of live decisions, with the definitions of the nightly.

AUC, average precision, calibration error and precision are those of `training.metrics`; the AUC's
interval is the benchmark's block bootstrap; PSI is `features.drift`.

Shapes: N decisions, F features.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_code.benchmark import blocks
from model_code.benchmark.significance import interval, loss_series
from model_code.benchmark.slices import WindowContext
from model_code.features.drift import drift_of
from model_code.live.feedback.labels import Labelled
from model_code.live.feedback.reference import LiveReference
from model_code.live.feedback.spec import FeedbackSpec
from model_code.settings import FEATURE_COUNT
from model_code.training.metrics import classification
from model_code.training.threshold import decide

RESAMPLES = 200


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one window. None: it cannot be computed, for example with labels of one class.

    Attributes:
        version: of the model.
        from_ns, until_ns: stamps of the first and the last decision.
        decisions: in the window; `unlabelled` of them have no label.
        unlabelled: see `labels`.
        events: labels of class 1.
        base_rate: share of class 1 among the labels.
        auc: with `auc_low` and `auc_high`, its interval.
        average_precision: guessing reaches the base rate.
        calibration_error: expected, 15 bins.
        precision: at the decision threshold; None without a positive decision.
        positive: decisions for an opportunity.
        psi: by feature, labelled or not.
        limits: of `psi`.
        breaches: what misses its limit, in words.
    """

    version: int
    from_ns: int
    until_ns: int
    decisions: int
    unlabelled: int
    events: int = 0
    base_rate: float | None = None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    average_precision: float | None = None
    calibration_error: float | None = None
    precision: float | None = None
    positive: int = 0
    psi: dict[str, float] = {}
    limits: dict[str, float] = {}
    breaches: tuple[str, ...] = ()
    judged: bool = False

    @property
    def numbers(self) -> dict[str, float]:
        """What is logged as metrics, by name."""
        names = (
            "decisions", "unlabelled", "positive", "base_rate", "auc", "auc_low", "auc_high",
            "average_precision", "calibration_error", "precision",
        )  # fmt: skip
        found = {name: getattr(self, name) for name in names}
        found |= {f"psi_{name}": value for name, value in self.psi.items()}
        return {name: float(value) for name, value in found.items() if value is not None}


def figures(window: Sequence[Labelled], spec: FeedbackSpec, reference: LiveReference) -> Figures:
    """The figures of decisions of one model version.

    Args:
        window: at least one decision, each with the same chance of being in the sample.
        spec: limits.
        reference: of the version.
    """
    decisions = [one.sampled.decision for one in window]
    label_N = np.array([one.label for one in window], np.int8)
    time_N = np.array([one.local_ns for one in decisions], np.int64)
    x_NF = np.frombuffer(b"".join(one.sampled.features for one in window), np.float32)
    psi = drift_of(reference.bins, x_NF.reshape(-1, FEATURE_COUNT))
    limits = reference.limits(spec.window_s, spec.psi_limit)
    seen_N = label_N >= 0
    labelled = [decisions[place] for place in np.flatnonzero(seen_N)]
    label_N = label_N[seen_N]
    events = int(label_N.sum())
    rare = min(events, len(label_N) - events)
    quality: dict[str, float] = {}
    bounds: tuple[float, float] | None = None
    positive = 0
    if len(label_N):
        probability_N = np.array([one.probability for one in labelled])
        threshold = labelled[-1].threshold
        positive = int(decide(probability_N, threshold).sum())
        if rare:
            quality = classification(label_N, probability_N, threshold)
        if rare >= 2:
            symbol_N = np.array([one.symbol for one in labelled])
            bounds = auc_bounds(label_N, probability_N, time_N[seen_N], symbol_N, spec.confidence)
    breaches = []
    if bounds and rare >= spec.minimum_events and bounds[0] < spec.auc_goal:
        breaches.append(
            f"AUC {quality['auc']:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}], goal {spec.auc_goal:g}"
        )
    drifted = {name: value for name, value in psi.items() if value > limits[name]}
    if len(decisions) >= spec.minimum:
        breaches += [
            f"PSI of {name} {value:.2f}, limit {limits[name]:.2f}"
            for name, value in sorted(drifted.items(), key=lambda item: -item[1])
        ]
    return Figures(
        version=decisions[-1].model_version,
        from_ns=int(time_N.min()),
        until_ns=int(time_N.max()),
        decisions=len(decisions),
        unlabelled=int((~seen_N).sum()),
        events=events,
        base_rate=float(label_N.mean()) if len(label_N) else None,
        auc=quality.get("auc"),
        auc_low=bounds[0] if bounds else None,
        auc_high=bounds[1] if bounds else None,
        average_precision=quality.get("average_precision"),
        calibration_error=quality.get("calibration_error"),
        precision=quality.get("precision") if positive else None,
        positive=positive,
        psi=psi,
        limits=limits,
        breaches=tuple(breaches),
        judged=len(decisions) >= spec.minimum,
    )


def auc_bounds(
    label_N: NDArray[np.int8],
    probability_N: NDArray[np.float64],
    time_N: NDArray[np.int64],
    symbol_N: NDArray[np.str_],
    confidence: float,
) -> tuple[float, float] | None:
    """Interval of the AUC from resampled blocks of decisions; None if it cannot be resampled."""
    flat_N = np.zeros(len(label_N))
    context = WindowContext(time_N, symbol_N, flat_N, flat_N)
    length = blocks.block_length(loss_series(label_N, probability_N), context)
    samples = blocks.quality_samples(
        label_N,
        {"live": probability_N},
        probability_N,
        context,
        length=length,
        resamples=RESAMPLES,
        seed=0,
    )
    found = interval(samples["live"]["auc"], confidence, clusters=len(label_N) // length)
    return None if found is None else (found.low, found.high)
