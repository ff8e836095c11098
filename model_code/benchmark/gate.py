"""The gate: goals against measured numbers. What is missing or not a number never passes."""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from model_code.benchmark.goals import (
    HIGHER_IS_BETTER,
    Goal,
    Goals,
    MaxDegradation,
    MinImprovement,
    Threshold,
    load_goals,
)
from model_code.benchmark.result import BenchmarkResult
from model_code.errors import GateError
from model_code.repository.triton_config import SERVABLE

__all__ = ["Goals", "Verdict", "choose", "decide", "load_goals"]

Metrics = Mapping[str, float | None]


class GoalRow(BaseModel):
    """One goal's outcome.

    Attributes:
        name: of the goal.
        metric: what was looked at.
        kind: of the goal.
        value: the candidate's.
        reference: what it was compared with: FP32's value, the champion's, or None.
        limit: as the goal states it, "<= 10" for example.
        margin: distance to the limit in the limit's unit; negative is missed.
        passed: None where there is no champion to compare with.
        reason: in words.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    name: str
    metric: str
    kind: str
    value: float | None
    reference: float | None
    limit: str
    margin: float | None
    passed: bool | None
    reason: str


class Verdict(BaseModel):
    """The gate's answer for one candidate.

    Attributes:
        verdict: "no baseline" when all else passes but there is no champion.
        promotable: may become the champion by default.
        reason: why, in one sentence.
        rows: one a goal.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    verdict: Literal["pass", "fail", "no baseline"]
    promotable: bool
    reason: str
    rows: tuple[GoalRow, ...]

    def markdown(self) -> str:
        """The goals for people."""
        lines = ["| goal | metric | value | limit | compared with | margin | |", "|---" * 7 + "|"]
        for row in self.rows:
            mark = {True: "pass", False: "FAIL", None: "no baseline"}[row.passed]
            numbers = [_text(number) for number in (row.value, row.reference, row.margin)]
            lines.append(
                f"| {row.name} | {row.metric} | {numbers[0]} | {row.limit} | {numbers[1]} "
                f"| {numbers[2]} | {mark} |"
            )
        return "\n".join([*lines, "", f"**{self.verdict}**: {self.reason}"]) + "\n"


def decide(
    candidate: Metrics,
    reference: Metrics,
    champion: Metrics | None,
    goals: Goals,
    *,
    simulated: bool,
) -> Verdict:
    """Judge one engine of one model.

    Args:
        candidate: `EngineRow.metrics()` of the engine to serve.
        reference: the same of eager FP32, in the same run.
        champion: the same of the serving model, on the same windows; None where there is none.
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
        verdict, reason = "no baseline", "all other goals are met; there is no champion yet"
    else:
        verdict, reason = "pass", "all goals are met"
    if simulated:
        reason += "; not promotable: simulated data say nothing about a market"
    return Verdict(
        verdict=verdict,
        promotable=verdict != "fail" and not simulated,
        reason=reason,
        rows=rows,
    )


def choose(result: BenchmarkResult, verdicts: Mapping[str, Verdict]) -> str | None:
    """The engine to stage: lowest p50 among those that did not fail and that Triton can serve.

    Returns:
        The engine's name, or None where every servable engine failed.
    """
    fit = [
        row
        for row in result.rows
        if row.engine in SERVABLE
        and row.engine in verdicts
        and verdicts[row.engine].verdict != "fail"
    ]
    return min(fit, key=lambda row: row.p50_ms).engine if fit else None


def _judge(goal: Goal, candidate: Metrics, reference: Metrics, champion: Metrics | None) -> GoalRow:
    value = _number(candidate.get(goal.metric))
    if isinstance(goal, Threshold):
        bound = goal.maximum if goal.maximum is not None else goal.minimum
        limit = f"{'<=' if goal.maximum is not None else '>='} {bound:g}"
        if value is None or bound is None:
            return _row(goal, value, None, limit, None, "the metric is missing or not finite")
        margin = bound - value if goal.maximum is not None else value - bound
        return _row(goal, value, None, limit, margin, "")
    other: Metrics | None
    unit = "%" if goal.unit == "percent" else ""
    if isinstance(goal, MaxDegradation):
        other, whose = reference, "FP32"
        limit = f"at most {goal.limit:g}{unit} worse than {whose}"
    else:
        other, whose = champion, "the champion"
        limit = f"at least {goal.limit:g}{unit} better than {whose}"
    if other is None:
        row = _row(goal, value, None, limit, None, "there is no champion yet")
        # only a sound number may wait for a champion
        return row if value is None else row.model_copy(update={"passed": None})
    baseline = _number(other.get(goal.metric))
    if value is None or baseline is None:
        missing = "the metric" if value is None else f"{whose}'s metric"
        return _row(goal, value, baseline, limit, None, f"{missing} is missing or not finite")
    gain = value - baseline if goal.metric in HIGHER_IS_BETTER else baseline - value
    if goal.unit == "percent":
        if baseline == 0.0:
            reason = f"{whose}'s metric is 0: no percentage of it exists"
            return _row(goal, value, baseline, limit, None, reason)
        gain = 100.0 * gain / abs(baseline)
    wanted = goal.limit if isinstance(goal, MinImprovement) else -goal.limit
    return _row(goal, value, baseline, limit, gain - wanted, "")


def _row(
    goal: Goal,
    value: float | None,
    reference: float | None,
    limit: str,
    margin: float | None,
    reason: str,
) -> GoalRow:
    passed = margin is not None and margin >= 0.0
    return GoalRow(
        name=goal.name,
        metric=goal.metric,
        kind=goal.kind,
        value=value,
        reference=reference,
        limit=limit,
        margin=margin,
        passed=passed,
        reason=reason or ("met" if passed else "missed"),
    )


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
