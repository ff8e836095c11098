"""How much of the decisions is kept on disk."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from model_code.live.feedback.spec import FeedbackSpec
from model_code.settings.base import Fraction, Positive, PositiveInt, Spec


def feedback_folder(home: Path, group_id: str) -> Path:
    """The folder of a group's log (`log`) and drift records (`drift`)."""
    return home / "live" / group_id / "feedback"


class LogSpec(Spec):
    """The prediction log: sample, files and retention.

    Attributes:
        rate: share of decisions that are logged with their input, sampled by
            `model_code.live.feedback.sampling.draw`.
        keep_days: older files are deleted.
        keep_mib: the oldest files are deleted above this size in total.
        rotate_rows, rotate_s: a file is written when it has so many rows, or after so long.
        queue_rows: rows that may wait for a slow disk; more are dropped and counted.
        judge: windows and limits of the figures.
    """

    KIND: Literal["prediction-log"] = "prediction-log"
    rate: Fraction = 0.01
    keep_days: Positive = 14.0
    keep_mib: Annotated[float, Field(gt=0)] = 1024.0
    rotate_rows: PositiveInt = 2048
    rotate_s: Positive = 60.0
    queue_rows: PositiveInt = 8192
    judge: FeedbackSpec = FeedbackSpec()
