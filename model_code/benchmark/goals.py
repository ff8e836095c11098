"""Goals a candidate must meet, parsed strictly from YAML: a typo is an error, never a pass."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_code.benchmark.blocks import QUALITY_METRICS
from model_code.benchmark.significance import LATENCY_METRICS
from model_code.errors import GateError

Metric = Literal[
    "mean_ms",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "p999_ms",
    "open_p50_ms",
    "open_p99_ms",
    "throughput",
    "size_mib",
    "peak_mib",
    "gpu_mib",
    "accuracy",
    "auc",
    "log_loss",
    "calibration_error",
    "flips",
    "flip_fraction",
    "slice_flip_fraction",
    "max_abs_dp",
    "p99_abs_dp",
    "batch_dependence",
    "non_finite",
    "accepted_non_finite",
    "average_precision",
    "average_precision_lift",
    "balanced_accuracy",
    "mcc",
    "precision",
    "recall",
    "base_rate",
]
HIGHER_IS_BETTER = frozenset(
    {
        "throughput", "accuracy", "auc", "average_precision", "average_precision_lift",
        "balanced_accuracy", "mcc", "precision", "recall",
    }
)  # fmt: skip
RESAMPLED = frozenset({*LATENCY_METRICS, *QUALITY_METRICS})  # the others have no interval
OF_LABELS = frozenset(QUALITY_METRICS) - {"flip_fraction"}  # gradient boosting has these
# of ranks or decisions: a few windows of the rarer class decide them
NEED_EVENTS = frozenset({*QUALITY_METRICS, "flips", "slice_flip_fraction"})
MINIMUM_EVENTS = 200  # of each class: the standard error of a recall is then at most 3.5 points


class _Goal(BaseModel):
    """Fields of all goals.

    Attributes:
        name: unique among the goals.
        metric: the metric to judge.
        confidence: None judges the point estimate only; otherwise the worse bound of the two-sided
            interval with this confidence must meet the limit too.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1)]
    metric: Metric
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] | None = None

    @model_validator(mode="after")
    def _resampled(self) -> Self:
        if self.confidence is not None and self.metric not in RESAMPLED:
            raise ValueError(f"{self.metric} has no interval; omit confidence")
        return self


class Threshold(_Goal):
    """A limit on the metric itself.

    Attributes:
        minimum: smallest value that passes.
        maximum: largest value that passes.
    """

    kind: Literal["threshold"]
    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.minimum is None) == (self.maximum is None):
            raise ValueError("set either minimum or maximum")
        return self


class MaxDegradation(_Goal):
    """A limit on how much worse than the FP32 reference's, in the same run, the metric may be.

    Attributes:
        limit: in the metric's unit, or in percent of the reference's value.
        unit: which of the two.
    """

    kind: Literal["max-degradation"]
    limit: Annotated[float, Field(ge=0.0)]
    unit: Literal["absolute", "percent"]


class MinImprovement(_Goal):
    """A limit on how much better than another model's, on the same windows, the metric must be.

    Attributes:
        limit: in the metric's unit, or in percent of the other's value; 0 means no worse, a
            negative limit allows a degradation.
        unit: which of the two.
        over: the other model: the champion, or gradient boosting on the same windows.
    """

    kind: Literal["min-improvement"]
    limit: float
    unit: Literal["absolute", "percent"]
    over: Literal["champion", "boosting"] = "champion"

    @model_validator(mode="after")
    def _boosting_has_it(self) -> Self:
        if self.over == "boosting" and self.metric not in OF_LABELS:
            raise ValueError(f"gradient boosting has no {self.metric}")
        return self


Goal = Annotated[Threshold | MaxDegradation | MinImprovement, Field(discriminator="kind")]


class Goals(BaseModel):
    """All goals of a gate; at least one, names unique.

    Attributes:
        minimum_events: windows of each class below which no goal on decisions or ranks is judged.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    goals: Annotated[tuple[Goal, ...], Field(min_length=1)]
    minimum_events: Annotated[int, Field(ge=1)] = MINIMUM_EVENTS

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [goal.name for goal in self.goals]
        if len(set(names)) < len(names):
            raise ValueError("two goals have the same name")
        return self


def load_goals(path: Path | None = None) -> Goals:
    """Read goals; without a path, the shipped ones (`goals.yaml`).

    Raises:
        GateError: missing, not YAML, empty, or a goal is malformed.
    """
    where = str(path or "model_code/benchmark/goals.yaml")
    try:
        text = (path or resources.files("model_code.benchmark") / "goals.yaml").read_text()
        found = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GateError(f"goals cannot be read: {error}", where=where, remedy=_REMEDY) from error
    if not isinstance(found, Mapping) or not found.get("goals"):
        raise GateError("there are no goals, so nothing can pass", where=where, remedy=_REMEDY)
    try:
        # YAML has only lists, strict mode requires a tuple
        return Goals.model_validate({**found, "goals": tuple(found["goals"])})
    except (ValidationError, TypeError) as error:
        raise GateError(
            f"goals are malformed: {_first(error)}", where=where, remedy=_REMEDY
        ) from error


_REMEDY = "write goals as in model_code/benchmark/goals.yaml"


def _first(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return "`goals` is not a list"
    fault = error.errors()[0]
    place = " ".join(str(part) for part in fault["loc"]) or "goals"
    return f"{place}: {fault['msg']} (found {fault['input']!r:.80})"
