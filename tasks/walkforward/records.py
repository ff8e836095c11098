"""Results of the stages of a walk forward."""

import datetime as dt

from model_code.artifacts import ArtifactRef
from tasks.nightly.records import Record, SplitWindows


class Fitted(Record):
    """One rival on one date.

    Attributes:
        probability: of class 1 on the test windows (.npy, float64), in the order of the test ends.
        threshold: of its decisions, chosen on the validation windows.
        seconds: of fit and predictions.
        chosen: settings and figures of the fit, for the reader.
        model: `network.save` file; None for a rival that is not one of the night's models.
    """

    probability: ArtifactRef
    threshold: float
    seconds: float
    chosen: dict[str, float]
    model: ArtifactRef | None = None


class TestDate(Record):
    """A date that is predicted.

    Attributes:
        date: UTC.
        split: windows of training, validation and this date.
        earned: best case of acting on each test window (.npy, float64, basis points).
    """

    __test__ = False  # not a test case, whatever its name says to pytest

    date: dt.date
    split: SplitWindows
    earned: ArtifactRef


class Walker(Record):
    """A rival and its fits.

    Attributes:
        name: unique.
        inputs: the feature set it sees.
        against: name of the tuned boosting on the same inputs.
        fits: one for each test date.
    """

    name: str
    inputs: str
    against: str
    fits: tuple[Fitted, ...]


class Shuffled(Record):
    """AUC on the newest date of boosting fitted to shuffled labels, one of each shuffle."""

    aucs: tuple[float, ...]
