"""Judge one engine by the goals. A missing or non-finite metric never passes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code.benchmark.goals import (
    HIGHER_IS_BETTER,
    NEED_EVENTS,
    Goal,
    Goals,
    MaxDegradation,
    MinImprovement,
    Threshold,
)
from model_code.benchmark.significance import Interval, interval, round_medians
from model_code.errors import GateError

Word = Literal["pass", "fail", "no baseline", "too few events"]
ACCEPTED: frozenset[Word] = frozenset({"pass", "no baseline"})  # registered and staged
TOO_FEW = "too few events"


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


@dataclass(frozen=True)
class Events:
    """How many windows of each class the engines are judged on.

    Attributes:
        positives: test windows with label 1.
        negatives: test windows with label 0.
        days: UTC days they are from.
    """

    positives: int
    negatives: int
    days: int

    @classmethod
    def of(cls, label_N: NDArray[np.integer], day_N: NDArray[np.integer]) -> Self:
        """Count windows; `day_N` is the day of each."""
        positives = int((label_N == 1).sum())
        return cls(positives, len(label_N) - positives, len(np.unique(day_N)))

    def too_few(self, minimum: int) -> str:
        """Why goals on decisions and ranks cannot be judged; empty if they can."""
        rarer = min(self.positives, self.negatives)
        if rarer >= minimum:
            return ""
        enough = "no number of days like this would be enough"
        if rarer:
            days = math.ceil(minimum * self.days / rarer)
            enough = f"{days} {'day' if days == 1 else 'days'} like this would be enough"
        return (
            f"{TOO_FEW}: {self.positives} positives and {self.negatives} negatives among the test "
            f"windows, {minimum} of each are needed; {enough}"
        )


class GoalRow(BaseModel):
    """Result of one goal.

    Attributes:
        name: of the goal.
        metric: of the goal.
        kind: of the goal.
        value: the candidate's.
        reference: the value it is compared with, FP32's, the champion's or gradient boosting's, or
            None.
        limit: as in the goal, for example "<= 10".
        interval: if the goal sets a confidence: of the value, or of its gain over the reference,
            in the limit's unit.
        margin: distance to the limit in the limit's unit, from the interval's worse bound if there
            is one; negative means missed.
        passed: None if it is not judged: no champion to compare against, or too few events.
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

    @property
    def word(self) -> Word:
        """The row's result in the words of a verdict."""
        if self.passed is not None:
            return "pass" if self.passed else "fail"
        return "too few events" if self.reason.startswith(TOO_FEW) else "no baseline"


class Verdict(BaseModel):
    """The gate's verdict on one candidate.

    Attributes:
        verdict: "too few events" if no goal is missed, but the goals on decisions and ranks cannot
            be judged; "no baseline" if all other goals pass but there is no champion.
        promotable: whether it may become the champion by default.
        reason: in one sentence.
        rows: one per goal.
        auc_resolution: half width of the 95% interval of the AUC difference to gradient boosting,
            paired; None if it was not resampled.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    verdict: Word
    promotable: bool
    reason: str
    rows: tuple[GoalRow, ...]
    auc_resolution: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether the model is registered and the engine staged."""
        return self.verdict in ACCEPTED

    @property
    def resolution_line(self) -> str:
        """The smallest AUC difference that could have been seen; empty if unknown."""
        if self.auc_resolution is None:
            return ""
        return (
            "smallest AUC difference from gradient boosting that could have been seen: "
            f"{self.auc_resolution:.4f}"
        )

    def markdown(self) -> str:
        """The goals as a Markdown table, with the verdict below."""
        lines = [
            "| goal | metric | value | compared with | limit | interval | margin | |",
            "|---" * 8 + "|",
        ]
        for row in self.rows:
            mark = "FAIL" if row.word == "fail" else row.word
            lines.append(
                f"| {row.name} | {row.metric} | {_text(row.value)} | {_text(row.reference)} "
                f"| {row.limit} | {_interval_text(row.interval)} | {_text(row.margin)} | {mark} |"
            )
        lines += ["", f"**{self.verdict}**: {self.reason}"]
        if self.resolution_line:
            lines += ["", f"{self.resolution_line[0].upper()}{self.resolution_line[1:]}."]
        return "\n".join(lines) + "\n"


def decide(
    candidate: Evidence,
    reference: Evidence,
    champion: Evidence | None,
    goals: Goals,
    *,
    simulated: bool,
    events: Events,
    boosting: Evidence | None = None,
) -> Verdict:
    """Judge one engine of one model.

    Args:
        candidate: the engine to serve.
        reference: eager FP32, in the same run.
        champion: the serving model, in the same run; None if there is none.
        goals: from `load_goals`.
        simulated: the model was trained or measured on simulated data; it is never promotable.
        events: windows of each class; below the goals' minimum no goal on decisions or ranks is
            judged.
        boosting: gradient boosting, on the same windows; None if its predictions are missing.

    Raises:
        GateError: there are no goals.
    """
    if not goals.goals:
        raise GateError("there are no goals, so nothing can pass")
    few = events.too_few(goals.minimum_events)
    rows = tuple(
        _judge(
            goal,
            candidate,
            reference,
            champion,
            boosting,
            few if goal.metric in NEED_EVENTS else "",
        )
        for goal in goals.goals
    )
    missed = [row.name for row in rows if row.word == "fail"]
    verdict: Word
    if missed:
        verdict, reason = "fail", f"missed: {', '.join(missed)}"
        reason += f"; {few}" if any(row.word == "too few events" for row in rows) else ""
    elif any(row.word == "too few events" for row in rows):
        verdict, reason = "too few events", few.removeprefix(f"{TOO_FEW}: ")
    elif champion is None:
        verdict, reason = "no baseline", "all other goals are met; no champion to compare against"
    else:
        verdict, reason = "pass", "all goals are met"
    if simulated:
        reason += "; not promotable: simulated data"
    return Verdict(
        verdict=verdict,
        promotable=verdict in ACCEPTED and not simulated,
        reason=reason,
        rows=rows,
        auc_resolution=_resolution(candidate, boosting),
    )


def _resolution(candidate: Evidence, boosting: Evidence | None) -> float | None:
    """Half width of the 95% interval of the AUC difference, on the same draws."""
    mine = candidate.draws.get("auc")
    theirs = boosting.draws.get("auc") if boosting else None
    if mine is None or theirs is None:
        return None
    bounds = interval(mine.values_S - theirs.values_S, 0.95, clusters=mine.clusters)
    return None if bounds is None else 0.5 * (bounds.high - bounds.low)


def _judge(
    goal: Goal,
    candidate: Evidence,
    reference: Evidence,
    champion: Evidence | None,
    boosting: Evidence | None,
    few: str,
) -> GoalRow:
    """Judge one goal; `few`: why it cannot be judged, or empty."""
    row = _judged(goal, candidate, reference, champion, boosting)
    return row.model_copy(update={"passed": None, "reason": few}) if few else row


def _judged(
    goal: Goal,
    candidate: Evidence,
    reference: Evidence,
    champion: Evidence | None,
    boosting: Evidence | None,
) -> GoalRow:
    value = candidate.number(goal.metric)
    if isinstance(goal, Threshold):
        return _judge_threshold(goal, candidate, value)
    if isinstance(goal, MaxDegradation):
        return _judge_gain(goal, candidate, reference, -goal.limit, "FP32")
    if goal.over == "boosting":
        if boosting is not None:
            return _judge_gain(goal, candidate, boosting, goal.limit, "gradient boosting")
        limit = _limit_text(goal, goal.limit, "gradient boosting")
        return _row(goal, value, None, limit, None, NO_BOOSTING)
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


NO_BOOSTING = (
    "gradient boosting's predictions are not in this run: measure again with tickline nightly or "
    "tickline bench"
)
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
