"""How live decisions are judged, and what counts as a breach."""

from typing import Annotated, Literal

from pydantic import Field

from model_code.features.drift import LARGE
from model_code.settings.base import Fraction, Positive, PositiveInt, Spec


class FeedbackSpec(Spec):
    """Windows, limits and sample of the live figures. Times are those of the ticks.

    Attributes:
        rate: share of decisions that are judged, sampled by `sampling.draw`.
        window_s: figures are of the decisions of the last so many seconds.
        every_s: between two computations of the figures.
        most: decisions kept for a window; with more, a window is shorter.
        minimum: with fewer decisions in a window, drift is not judged.
        minimum_events: with fewer labels of either class, AUC is not judged.
        auc_goal: the lower bound of the AUC's interval must reach it.
        confidence: of that interval.
        psi_limit: of each feature; training's own variation raises it (`LiveReference.limits`).
        sustained: so many windows in a row with a breach are a sustained breach.
    """

    KIND: Literal["feedback"] = "feedback"
    rate: Fraction = 1.0
    window_s: Positive = 900.0
    every_s: Positive = 60.0
    most: PositiveInt = 20_000
    minimum: PositiveInt = 500
    minimum_events: PositiveInt = 200
    auc_goal: Fraction = 0.55
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    psi_limit: Positive = LARGE
    sustained: PositiveInt = 3
