"""Judge one engine by the goals. A missing or non-finite metric never passes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_code.benchmark.goals import (
    HIGHER_IS_BETTER,
    NEED_EVENTS,
    OF_ENGINE,
    Goal,
    Goals,
    MaxDegradation,
    MinImprovement,
    Threshold,
)
from model_code.benchmark.significance import Interval, interval, round_medians
from model_code.benchmark.verdict import (
    NOT_COMPARABLE,
    NOT_JUDGED,
    PROMOTABLE,
    TOO_FEW,
    Events,
    Evidence,
    GoalRow,
    Obstacles,
    Verdict,
    Word,
)
from model_code.errors import GateError

NO_OBSTACLES = Obstacles()


@dataclass(frozen=True)
class _Others:
    """What a candidate is compared with."""

    reference: Evidence
    champion: Evidence | None
    boosting: Evidence | None
    anchor: Evidence | None
    obstacles: Obstacles


def decide(
    candidate: Evidence,
    reference: Evidence,
    champion: Evidence | None,
    goals: Goals,
    *,
    simulated: bool,
    events: Events,
    boosting: Evidence | None = None,
    anchor: Evidence | None = None,
    obstacles: Obstacles = NO_OBSTACLES,
    family: int = 1,
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
        anchor: the version that served many nights ago, in the same run; None if there is none.
        obstacles: why champion or anchor cannot be compared with.
        family: engines that the goals' confidence is divided among.

    Raises:
        GateError: there are no goals.
    """
    if not goals.goals:
        raise GateError("there are no goals, so nothing can pass")
    few = events.too_few(goals.minimum_events)
    others = _Others(reference, champion, boosting, anchor, obstacles)
    rows = tuple(
        _judge(goal, candidate, others, few if goal.metric in NEED_EVENTS else "")
        for goal in goals.shared_by(family).goals
    )
    words = [row.word for row in rows]
    missed = [row.name for row in rows if row.word == "fail"]
    verdict: Word
    if missed:
        verdict, reason = "fail", f"missed: {', '.join(missed)}"
        reason += f"; {few}" if "too few events" in words else ""
    elif "too few events" in words:
        verdict, reason = "too few events", few.removeprefix(f"{TOO_FEW}: ")
    elif obstacles.champion or "not comparable" in words:
        asked = any(row.word == "not comparable" and row.metric in OF_ENGINE for row in rows)
        why = dict.fromkeys((obstacles.champion, obstacles.latency if asked else ""))
        verdict, reason = "not comparable", "; ".join(filter(None, why))
    elif champion is None:
        verdict, reason = "no baseline", "all other goals are met; no champion to compare against"
    else:
        verdict, reason = "pass", "all goals are met"
        if "not judged" in words:
            open_ = ", ".join(row.name for row in rows if row.word == "not judged")
            reason = f"all other goals are met; not judged: {open_}"
    if simulated:
        reason += "; not promotable: simulated data"
    return Verdict(
        verdict=verdict,
        promotable=verdict in PROMOTABLE and not simulated,
        reason=reason,
        rows=rows,
        auc_resolution=_resolution(candidate, boosting),
        family=family,
    )


def _resolution(candidate: Evidence, boosting: Evidence | None) -> float | None:
    """Half width of the 95% interval of the AUC difference, on the same draws."""
    mine = candidate.draws.get("auc")
    theirs = boosting.draws.get("auc") if boosting else None
    if mine is None or theirs is None:
        return None
    bounds = interval(mine.values_S - theirs.values_S, 0.95, clusters=mine.clusters)
    return None if bounds is None else 0.5 * (bounds.high - bounds.low)


def _judge(goal: Goal, candidate: Evidence, others: _Others, few: str) -> GoalRow:
    """Judge one goal; `few`: why it cannot be judged, or empty."""
    row = _judged(goal, candidate, others)
    return row.model_copy(update={"passed": None, "reason": few}) if few else row


def _judged(goal: Goal, candidate: Evidence, others: _Others) -> GoalRow:
    value = candidate.number(goal.metric)
    if isinstance(goal, Threshold):
        return _judge_threshold(goal, candidate, value)
    if isinstance(goal, MaxDegradation):
        return _judge_gain(goal, candidate, others.reference, -goal.limit, "FP32")
    whose = WHOSE[goal.over]
    if goal.over == "boosting":
        if others.boosting is not None:
            return _judge_gain(goal, candidate, others.boosting, goal.limit, whose)
        return _row(goal, value, None, _limit_text(goal, goal.limit, whose), None, NO_BOOSTING)
    found, obstacles = others.champion, others.obstacles
    obstacle = obstacles.latency if goal.metric in OF_ENGINE else obstacles.answers
    if goal.over == "anchor":
        found, obstacle = others.anchor, obstacles.anchor
    if found is not None and not obstacle:
        return _judge_gain(goal, candidate, found, goal.limit, whose)
    return _unjudged(goal, value, found, obstacle)


def _unjudged(
    goal: MinImprovement, value: float | None, found: Evidence | None, obstacle: str
) -> GoalRow:
    """A goal that has nothing to compare with; a missing value fails all the same."""
    reason = "no champion to compare against"
    if goal.over == "anchor":
        reason = f"{NOT_JUDGED}: {obstacle or 'no version of many nights ago was measured'}"
    elif obstacle:
        reason = f"{NOT_COMPARABLE}: {obstacle}"
    other = found.number(goal.metric) if found else None
    limit = _limit_text(goal, goal.limit, WHOSE[goal.over])
    row = _row(goal, value, other, limit, None, reason)
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
    if goal.tolerance_ms is not None:
        unit = 1.0 if goal.unit == "absolute" else 100.0 / baseline
        wanted = min(wanted, -goal.tolerance_ms * unit)
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
    allowed = [f"{-wanted:g}{unit}"] if wanted else []
    allowed += [f"{goal.tolerance_ms:g} ms"] if goal.tolerance_ms else []
    return (
        f"at most {' or '.join(allowed)} worse than {whose}"
        if allowed
        else f"no worse than {whose}"
    )


def _judge_threshold(goal: Threshold, candidate: Evidence, value: float | None) -> GoalRow:
    bound = goal.maximum if goal.maximum is not None else goal.minimum
    limit = f"{'<=' if goal.maximum is not None else '>='} {bound:g}"
    if value is None or bound is None:
        return _row(goal, value, None, limit, None, NOT_MEASURED.get(goal.metric, _MISSING))
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


WHOSE = {
    "champion": "the champion",
    "boosting": "gradient boosting",
    "anchor": "the version of many nights ago",
}
NO_BOOSTING = (
    "gradient boosting's predictions are not in this run: measure again with tickline nightly or "
    "tickline bench"
)
_NO_INTERVAL = "no interval can be computed"
_MISSING = "the metric is missing or not finite"
# metrics that runs of earlier versions lack
NOT_MEASURED = {
    "accepted_non_finite": "no NaN or infinity was sent in this run of an earlier version: measure "
    "again with tickline nightly or tickline bench"
}


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
        over=getattr(goal, "over", ""),
    )
