"""Judge one engine by the goals. A missing or non-finite metric never passes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code.benchmark.goals import (
    HIGHER_IS_BETTER,
    Goal,
    Goals,
    MaxDegradation,
    MinImprovement,
    Threshold,
)
from model_code.benchmark.significance import Interval, interval, round_medians
from model_code.errors import GateError


@dataclass(frozen=True)
class Draws:
    """A metric in every resample.

    Attributes:
        values_S: the resampled metric.
        clusters: number of independent pieces drawn from; None means very many.
        rounds_P: a latency metric in every round, for comparison round by round.
    """

    values_S: NDArray[np.float64] = field(repr=False)
    clusters: int | None = None
    rounds_P: NDArray[np.float64] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Evidence:
    """Metrics of one engine, and the resampled ones among them.

    Engines of one run share the same draws, so `draws` of two engines are paired.
    """

    metrics: Mapping[str, float | None]
    draws: Mapping[str, Draws] = field(default_factory=dict)

    def number(self, metric: str) -> float | None:
        """The metric, or None if it is missing or not finite."""
        value = self.metrics.get(metric)
        return float(value) if value is not None and math.isfinite(value) else None


class GoalRow(BaseModel):
    """Result of one goal.

    Attributes:
        name: of the goal.
        metric: of the goal.
        kind: of the goal.
        value: the candidate's.
        reference: the value it is compared with, FP32's or the champion's, or None.
        limit: as in the goal, for example "<= 10".
        interval: if the goal sets a confidence: of the value, or of its gain over the reference,
            in the limit's unit.
        margin: distance to the limit in the limit's unit, from the interval's worse bound if there
            is one; negative means missed.
        passed: None if there is no champion to compare against.
        reason: as text.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    name: str
    metric: str
    kind: str
    value: float | None
    reference: float | None
    limit: str
    interval: Interval | None = None
    margin: float | None
    passed: bool | None
    reason: str


class Verdict(BaseModel):
    """The gate's verdict on one candidate.

    Attributes:
        verdict: "no baseline" if all other goals pass but there is no champion.
        promotable: whether it may become the champion by default.
        reason: in one sentence.
        rows: one per goal.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    verdict: Literal["pass", "fail", "no baseline"]
    promotable: bool
    reason: str
    rows: tuple[GoalRow, ...]

    def markdown(self) -> str:
        """The goals as a Markdown table, with the verdict below."""
        lines = [
            "| goal | metric | value | compared with | limit | interval | margin | |",
            "|---" * 8 + "|",
        ]
        for row in self.rows:
            mark = {True: "pass", False: "FAIL", None: "no baseline"}[row.passed]
            lines.append(
                f"| {row.name} | {row.metric} | {_text(row.value)} | {_text(row.reference)} "
                f"| {row.limit} | {_interval_text(row.interval)} | {_text(row.margin)} | {mark} |"
            )
        return "\n".join([*lines, "", f"**{self.verdict}**: {self.reason}"]) + "\n"


def decide(
    candidate: Evidence,
    reference: Evidence,
    champion: Evidence | None,
    goals: Goals,
    *,
    simulated: bool,
) -> Verdict:
    """Judge one engine of one model.

    Args:
        candidate: the engine to serve.
        reference: eager FP32, in the same run.
        champion: the serving model, in the same run; None if there is none.
        goals: from `load_goals`.
        simulated: the model was trained or measured on simulated data; it is never promotable.

    Raises:
        GateError: there are no goals.
    """
    if not goals.goals:
        raise GateError("there are no goals, so nothing can pass")
    rows = tuple(_judge(goal, candidate, reference, champion) for goal in goals.goals)
    missed = [row.name for row in rows if row.passed is False]
    verdict: Literal["pass", "fail", "no baseline"]
    if missed:
        verdict, reason = "fail", f"missed: {', '.join(missed)}"
    elif champion is None:
        verdict, reason = "no baseline", "all other goals are met; no champion to compare against"
    else:
        verdict, reason = "pass", "all goals are met"
    if simulated:
        reason += "; not promotable: simulated data"
    return Verdict(
        verdict=verdict,
        promotable=verdict != "fail" and not simulated,
        reason=reason,
        rows=rows,
    )


def _judge(
    goal: Goal, candidate: Evidence, reference: Evidence, champion: Evidence | None
) -> GoalRow:
    value = candidate.number(goal.metric)
    if isinstance(goal, Threshold):
        return _judge_threshold(goal, candidate, value)
    if isinstance(goal, MaxDegradation):
        return _judge_gain(goal, candidate, reference, -goal.limit, "FP32")
    if champion is not None:
        return _judge_gain(goal, candidate, champion, goal.limit, "the champion")
    limit = _limit_text(goal, goal.limit, "the champion")
    row = _row(goal, value, None, limit, None, "no champion to compare against")
    # a missing value fails even without a champion
    return row if value is None else row.model_copy(update={"passed": None})


def _judge_gain(
    goal: MaxDegradation | MinImprovement,
    candidate: Evidence,
    other: Evidence,
    wanted: float,
    whose: str,
) -> GoalRow:
    """Judge whether the candidate is better than another by `wanted`, which may be negative."""
    limit = _limit_text(goal, wanted, whose)
    value, baseline = candidate.number(goal.metric), other.number(goal.metric)
    if value is None or baseline is None:
        missing = "the metric" if value is None else f"{whose}'s metric"
        return _row(goal, value, baseline, limit, None, f"{missing} is missing or not finite")
    if goal.unit == "percent" and baseline == 0.0:
        reason = f"{whose}'s metric is 0: no percentage can be computed"
        return _row(goal, value, baseline, limit, None, reason)
    gain, bounds = float(_gain(goal, np.float64(value), np.float64(baseline))), None
    if goal.confidence is not None:
        mine, theirs = candidate.draws.get(goal.metric), other.draws.get(goal.metric)
        if mine is not None and theirs is not None:
            if mine.rounds_P is not None and theirs.rounds_P is not None:
                gain_P = np.asarray(_gain(goal, mine.rounds_P, theirs.rounds_P))
                gain, gain_S = float(np.median(gain_P)), round_medians(gain_P)
            else:
                gain_S = np.asarray(_gain(goal, mine.values_S, theirs.values_S))
            bounds = interval(gain_S, goal.confidence, clusters=mine.clusters)
        if bounds is None:
            return _row(goal, value, baseline, limit, None, _NO_INTERVAL)
        gain = min(gain, bounds.low)
    return _row(goal, value, baseline, limit, gain - wanted, "", bounds)


def _limit_text(goal: MaxDegradation | MinImprovement, wanted: float, whose: str) -> str:
    unit = "%" if goal.unit == "percent" else ""
    if wanted > 0.0:
        return f"at least {wanted:g}{unit} better than {whose}"
    return f"at most {-wanted:g}{unit} worse than {whose}" if wanted else f"no worse than {whose}"


def _judge_threshold(goal: Threshold, candidate: Evidence, value: float | None) -> GoalRow:
    bound = goal.maximum if goal.maximum is not None else goal.minimum
    limit = f"{'<=' if goal.maximum is not None else '>='} {bound:g}"
    if value is None or bound is None:
        return _row(goal, value, None, limit, None, "the metric is missing or not finite")
    worst, bounds = value, None
    if goal.confidence is not None:
        draws = candidate.draws.get(goal.metric)
        if draws is not None:
            bounds = interval(draws.values_S, goal.confidence, clusters=draws.clusters)
        if bounds is None:
            return _row(goal, value, None, limit, None, _NO_INTERVAL)
        upper = goal.maximum is not None
        worst = max(value, bounds.high) if upper else min(value, bounds.low)
    margin = bound - worst if goal.maximum is not None else worst - bound
    return _row(goal, value, None, limit, margin, "", bounds)


_NO_INTERVAL = "no interval can be computed"


def _gain(
    goal: MaxDegradation | MinImprovement,
    value: NDArray[np.float64] | np.float64,
    baseline: NDArray[np.float64] | np.float64,
) -> NDArray[np.float64] | np.float64:
    """How much better the value is, in the limit's unit."""
    gain = value - baseline if goal.metric in HIGHER_IS_BETTER else baseline - value
    if goal.unit == "absolute":
        return gain
    with np.errstate(divide="ignore", invalid="ignore"):  # a 0 in a resample gives no interval
        return 100.0 * gain / np.abs(baseline)


def _row(
    goal: Goal,
    value: float | None,
    reference: float | None,
    limit: str,
    margin: float | None,
    reason: str,
    bounds: Interval | None = None,
) -> GoalRow:
    passed = margin is not None and margin >= 0.0
    return GoalRow(
        name=goal.name,
        metric=goal.metric,
        kind=goal.kind,
        value=value,
        reference=reference,
        limit=limit if goal.confidence is None else f"{limit}, confidence {goal.confidence:.4g}",
        interval=bounds,
        margin=margin,
        passed=passed,
        reason=reason or ("met" if passed else "missed"),
    )


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _interval_text(bounds: Interval | None) -> str:
    return "–" if bounds is None else f"{bounds.low:.4g} .. {bounds.high:.4g}"
