"""What `tickline walkforward` compares, and on which dates."""

from typing import Annotated, Literal

from pydantic import Field

from model_code.settings.base import Fraction, PositiveInt, Spec
from model_code.settings.specs import NightlySpec


class WalkforwardSpec(Spec):
    """A walk forward in time: each test date is predicted by models of the dates before it.

    Attributes:
        night: ticks, features, windows of training and validation, and the model. All windows of
            a test date are judged, whatever `night.split.test_windows` says.
        first_test: test dates begin at this share of the dates, at the second at the earliest.
        tuning_trials: settings of gradient boosting tried for each date; the validation windows
            choose.
        seeds: trainings of the model on the newest test date, each with another seed.
        also_solo: compare model and boosting on each instrument's own features too.
        delay_ms: from the decision to the trade, in the profit bound; None: the 99th percentile of
            the model's latency in ONNX Runtime, measured in the run.
        shuffled: fit boosting to shuffled labels too; only a leak lets it rank windows.
    """

    KIND: Literal["walk-forward"] = "walk-forward"
    night: NightlySpec = NightlySpec()
    first_test: Fraction = 0.5
    tuning_trials: PositiveInt = 8
    seeds: PositiveInt = 5
    also_solo: bool = True
    delay_ms: Annotated[float, Field(ge=0.0)] | None = None
    shuffled: bool = True
