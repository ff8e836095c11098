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
# of the machine, not of the answers
OF_ENGINE = frozenset(
    {*LATENCY_METRICS, "open_p50_ms", "open_p99_ms", "throughput", "size_mib", "peak_mib"}
)
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


class _Comparison(_Goal):
    """Fields of goals that compare with another model.

    Attributes:
        unit: of the limit: the metric's, or percent of the other's value.
        tolerance_ms: of a latency: a difference up to this never counts, whatever its percentage.
    """

    unit: Literal["absolute", "percent"]
    tolerance_ms: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _of_a_latency(self) -> Self:
        if self.tolerance_ms is not None and not self.metric.endswith("_ms"):
            raise ValueError(f"{self.metric} is not a latency; omit tolerance_ms")
        return self


class MaxDegradation(_Comparison):
    """A limit on how much worse than the FP32 reference's, in the same run, the metric may be.

    Attributes:
        limit: in the metric's unit, or in percent of the reference's value.
    """

    kind: Literal["max-degradation"]
    limit: Annotated[float, Field(ge=0.0)]


class MinImprovement(_Comparison):
    """A limit on how much better than another model's, on the same windows, the metric must be.

    Attributes:
        limit: in the metric's unit, or in percent of the other's value; 0 means no worse, a
            negative limit allows a degradation.
        over: the other model: the champion, gradient boosting on the same windows, or the anchor,
            which is the version that served many nights ago.
    """

    kind: Literal["min-improvement"]
    limit: float
    over: Literal["champion", "boosting", "anchor"] = "champion"

    @model_validator(mode="after")
    def _the_other_has_it(self) -> Self:
        if self.over == "boosting" and self.metric not in OF_LABELS:
            raise ValueError(f"gradient boosting has no {self.metric}")
        if self.over == "anchor" and self.metric not in OF_LABELS:
            raise ValueError(f"the anchor has no {self.metric}: only its answers are compared")
        if self.tolerance_ms is not None and self.limit > 0.0:
            raise ValueError("tolerance_ms allows a loss, limit asks for a gain; omit one")
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

    def shared_by(self, engines: int) -> Self:
        """The same goals, their confidence divided among so many engines (Bonferroni).

        With confidence c each engine gets 1 - (1 - c) / engines.
        """
        if engines <= 1:
            return self
        stricter = tuple(
            goal
            if goal.confidence is None
            else goal.model_copy(update={"confidence": 1.0 - (1.0 - goal.confidence) / engines})
            for goal in self.goals
        )
        return self.model_copy(update={"goals": stricter})

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
