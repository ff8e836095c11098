"""The gate: verdicts and a choice of engine from a measured run, without inference."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from model_code.benchmark import blocks, significance
from model_code.benchmark.goals import OF_LABELS, Goals, load_goals
from model_code.benchmark.judge import decide
from model_code.benchmark.regression import LATER, compare
from model_code.benchmark.result import BenchmarkResult, BenchmarkRun, EngineRow, Other
from model_code.benchmark.slices import sliced, worst_flip_fraction
from model_code.benchmark.timing import STABLE_WITHIN
from model_code.benchmark.verdict import Draws, Events, Evidence, Obstacles, Verdict
from model_code.errors import GateError
from model_code.repository.triton_config import SERVABLE
from model_code.settings import (
    ANCHOR_ROW,
    BOOSTING_ROW,
    CHAMPION_ROW,
    ENGINE_NAMES,
    REFERENCE_ENGINE,
)

__all__ = ["Choice", "Goals", "Verdict", "choose", "evidence", "judge_run", "load_goals", "places"]

TIE = 0.02  # medians that may be within this fraction count as equally fast
EXACTNESS = ("fp32", "bf16", "fp16", "int8")
CHANGED = frozenset({"pruned", "sparse"})  # engines with fewer weights than the trained network
SEED = 0


class Choice(BaseModel):
    """Which engine to stage.

    Attributes:
        engine: the one to stage; if none may be, the one that missed the fewest goals.
        verdict: of that engine; "fail" or "too few events" if nothing may be staged.
        reason: why this engine, in one sentence.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    engine: str
    verdict: Verdict
    reason: str


def judge_run(
    run: BenchmarkRun, goals: Goals, *, simulated: bool, pin: str | None = None
) -> dict[str, Verdict]:
    """The verdict of every measured engine that Triton can serve, in the table's order.

    One engine is chosen of several that are tested, so the confidence of the goals is held for all
    of them together, by Holm's procedure (1979, Scandinavian Journal of Statistics 6:65): first
    each of k engines is judged at the confidence divided among k; those that did not fail are out,
    and the others are judged at the confidence divided among the rest, until none is added. A
    pinned engine is the only one that may be staged, so nothing is divided.

    Args:
        run: the measured run.
        goals: from `load_goals`.
        simulated: no verdict is promotable.
        pin: the only engine that may be staged.

    Raises:
        GateError: there are no goals, or the run has no FP32 reference.
    """
    if run.result.row(REFERENCE_ENGINE) is None:
        raise GateError(
            f"the run has no {REFERENCE_ENGINE}: nothing to compare against",
            remedy=f"run the benchmark again with {REFERENCE_ENGINE}",
        )
    found = evidence(run, resample=any(goal.confidence is not None for goal in goals.goals))
    events = Events.of(run.label_N, run.context.days())
    same_anchor = _same_version(run.result.anchor, run.result.champion)

    def judge(name: str, family: int) -> Verdict:
        return decide(
            found[name],
            found[REFERENCE_ENGINE],
            found.get(CHAMPION_ROW),
            goals,
            simulated=simulated,
            events=events,
            boosting=found.get(BOOSTING_ROW),
            anchor=found.get(CHAMPION_ROW if same_anchor else ANCHOR_ROW),
            obstacles=obstacles(run.result),
            family=family,
        )

    names = [name for name in found if name in SERVABLE]
    if pin is not None:
        return {name: judge(name, 1) for name in names}
    return _holm(names, judge)


def _holm(names: list[str], judge: Callable[[str, int], Verdict]) -> dict[str, Verdict]:
    """Judge engines at stepwise laxer levels; `judge` takes a name and the engines left."""
    verdicts: dict[str, Verdict] = {}
    left = list(names)
    while left:
        judged = {name: judge(name, len(left)) for name in left}
        held = {name: verdict for name, verdict in judged.items() if verdict.accepted}
        verdicts |= held or judged
        left = [name for name in left if name not in verdicts]
    return {name: verdicts[name] for name in names}


def obstacles(result: BenchmarkResult) -> Obstacles:
    """Why champion and anchor cannot be compared with; empty where they can.

    A run of an earlier version does not say what its figures refer to: it is judged as it was then.
    """
    champion, row = result.champion, result.row(CHAMPION_ROW)
    whole = answers = latency = ""
    its = f"the champion, version {champion.version}," if champion else ""
    if champion is not None and row is None:
        why = result.unavailable.get(CHAMPION_ROW, "it has no row")
        whole = answers = latency = f"{its} has no figures: {why}"
    elif champion is not None and result.terms is not None:
        different = result.terms.differences(champion.terms)
        if different:
            whole = f"{its} is another: {'; '.join(different)}"
        answers = "" if result.terms.same_question(champion.terms) else whole
    if row is not None and not row.facts.same_engine:
        latency = "the champion's latency is of its ONNX graph, not of the engine that serves"
    return Obstacles(champion=whole, answers=answers, latency=latency, anchor=_no_anchor(result))


def _no_anchor(result: BenchmarkResult) -> str:
    """Why no goal is judged against the version of many nights ago; empty if they are."""
    anchor = result.anchor
    if anchor is None:
        return result.no_anchor or "no version of many nights ago was measured"
    name = CHAMPION_ROW if _same_version(anchor, result.champion) else ANCHOR_ROW
    if result.row(name) is None:
        why = result.unavailable.get(name, "it has no row")
        return f"version {anchor.version}, of many nights ago, has no figures: {why}"
    if result.terms is not None and not result.terms.same_question(anchor.terms):
        different = "; ".join(result.terms.differences(anchor.terms))
        return f"version {anchor.version}, of many nights ago, is another: {different}"
    return ""


def _same_version(one: Other | None, other: Other | None) -> bool:
    return one is not None and other is not None and one.version == other.version


def evidence(run: BenchmarkRun, *, resample: bool) -> dict[str, Evidence]:
    """The metrics of FP32, earlier versions, gradient boosting and what Triton can serve.

    Args:
        run: with a row of the FP32 reference.
        resample: also resample the metrics for intervals, which takes a second or two.
    """
    wanted = {REFERENCE_ENGINE, CHAMPION_ROW, ANCHOR_ROW, *SERVABLE}
    rows = [row for row in run.result.rows if row.engine in wanted]
    draws = _draws(run, [row.engine for row in rows]) if resample else {}
    found = {
        row.engine: Evidence(
            row.metrics() | _later_metrics(run, row) | _slice_metrics(run, row.engine),
            draws.get(row.engine, {}),
        )
        for row in rows
    }
    if run.boosting_N is not None:
        threshold = run.result.threshold_of(BOOSTING_ROW)
        known = compare(
            run.label_N,
            run.boosting_N,
            run.boosting_N,
            threshold=threshold,
            weight_N=run.context.weight_N,
        )
        metrics = known.model_dump(include=set(OF_LABELS))
        found[BOOSTING_ROW] = Evidence(metrics, draws.get(BOOSTING_ROW, {}))
    return found


def choose(run: BenchmarkRun, verdicts: Mapping[str, Verdict], pin: str | None = None) -> Choice:
    """The engine to stage: the pinned one, or the fastest at batch 1 that did not fail.

    An engine's speed is the median of its medians in the repeated measurements, so that one
    disturbed measurement does not decide. Engines whose median may be within 2% of the fastest, by
    the 95% interval of the ratio in most of the repeated measurements, count as equally fast. Among
    them the most exact wins, then the first in table order.

    Args:
        run: the measured run.
        verdicts: from `judge_run`.
        pin: choose this engine or none.

    Raises:
        GateError: no engine that Triton can serve was measured.
    """
    if not verdicts:
        raise GateError(
            "no engine that Triton can serve was measured, so none can be chosen",
            remedy="list what this machine lacks: tickline engines",
        )
    if pin is not None:
        return _pinned(run, verdicts, pin)
    fit = [name for name, verdict in verdicts.items() if verdict.accepted]
    if not fit:
        engine = _nearest(verdicts)
        if verdicts[engine].verdict != "fail":
            return Choice(
                engine=engine,
                verdict=verdicts[engine],
                reason="no engine could be judged: too few events",
            )
        return Choice(
            engine=engine,
            verdict=verdicts[engine],
            reason=f"every engine failed the gate; {engine} missed the fewest goals",
        )
    median = {name: run.repeated_p50_ms(name) for name in fit}
    fastest = min(fit, key=lambda name: median[name])
    ties = sorted(
        (name for name in fit if name == fastest or _equally_fast(run, name, fastest)),
        key=_preference,
    )
    reason = f"{fastest} is the fastest that did not fail"
    if len(ties) > 1:
        reason = f"{ties[0]} wins among equally fast engines that did not fail: {', '.join(ties)}"
    return Choice(engine=ties[0], verdict=verdicts[ties[0]], reason=reason)


def places(run: BenchmarkRun) -> tuple[tuple[str, ...], ...]:
    """Rank engines by batch-1 latency, fastest first; indistinguishable engines share a place.

    An engine shares the place of a faster one if, by the 95% interval of their ratio, it may be at
    most 10% slower. The median of a stable row may drift that far within one measurement, so the
    next measurement, under another load, could reverse the order. `choose` is stricter, because it
    compares within one measurement only. Within a place the engines are in table order.
    """
    rows = {row.engine: run.repeated_p50_ms(row.engine) for row in run.result.rows}
    table, found = list(rows), list[list[str]]()
    for name in sorted(rows, key=lambda engine: rows[engine]):
        if found and _equally_fast(run, name, found[-1][0], STABLE_WITHIN):
            found[-1].append(name)
        else:
            found.append([name])
    return tuple(tuple(sorted(place, key=table.index)) for place in found)


def _pinned(run: BenchmarkRun, verdicts: Mapping[str, Verdict], pin: str) -> Choice:
    if pin in verdicts:
        outcome = "failed the gate" if verdicts[pin].verdict == "fail" else "did not fail"
        if verdicts[pin].verdict == "too few events":
            outcome = "could not be judged: too few events"
        return Choice(engine=pin, verdict=verdicts[pin], reason=f"{pin} is pinned and {outcome}")
    why = run.result.unavailable.get(pin, "not measured")
    reason = f"{pin} is pinned, but cannot be judged: {why}"
    engine = _nearest(verdicts)
    # no other engine may replace the pinned one
    refused = {"verdict": "fail", "promotable": False, "reason": reason}
    return Choice(engine=engine, verdict=verdicts[engine].model_copy(update=refused), reason=reason)


def _nearest(verdicts: Mapping[str, Verdict]) -> str:
    """The engine that misses the fewest goals."""
    return min(verdicts, key=lambda name: sum(row.passed is False for row in verdicts[name].rows))


def _equally_fast(run: BenchmarkRun, name: str, fastest: str, within: float = TIE) -> bool:
    """Whether most of the repeated measurements cannot exclude it, by their own intervals."""
    ratios = [
        significance.latency_ratio(
            run.latency_ms_R[name][part_R],
            run.latency_ms_R[fastest][part_R],
            run.round_R[part_R],
            seed=SEED,
        )
        for part_R in run.repetitions()
    ]
    lows = [ratio.low for ratio in ratios if ratio is not None]
    return len(lows) == len(ratios) and float(np.median(lows)) <= 1.0 + within


def _preference(name: str) -> tuple[bool, int, int]:
    """Order: all weights before fewer weights, then by precision, then table order."""
    parts = name.split("-")
    exactness = EXACTNESS.index(parts[-1]) if parts[-1] in EXACTNESS else 0
    place = ENGINE_NAMES.index(name) if name in ENGINE_NAMES else len(ENGINE_NAMES)
    return not CHANGED.isdisjoint(parts), exactness, place


def _later_metrics(run: BenchmarkRun, row: EngineRow) -> dict[str, float | None]:
    """Metrics that a run of an earlier version did not store, from its predictions."""
    if row.quality.base_rate is not None:
        return {}
    answers = run.probability_N
    quality = compare(run.label_N, answers[row.engine], answers[REFERENCE_ENGINE])
    return quality.model_dump(include={*LATER, "base_rate"})


def _slice_metrics(run: BenchmarkRun, name: str) -> dict[str, float | None]:
    answers = run.probability_N
    thresholds = run.result.threshold_of(name), run.result.threshold
    rows = sliced(run.context, run.label_N, answers[name], answers[REFERENCE_ENGINE], thresholds)
    return {"slice_flip_fraction": worst_flip_fraction(rows)}


def _draws(run: BenchmarkRun, names: Sequence[str]) -> dict[str, dict[str, Draws]]:
    """Every resampled metric by engine; all engines share the draws, so they are paired."""
    reference_N, boosting_N = run.probability_N[REFERENCE_ENGINE], run.boosting_N
    weight_N, champion_N = run.context.weight_N, run.probability_N.get(CHAMPION_ROW)
    series = significance.loss_series(run.label_N, reference_N, champion_N, weight_N)
    answers = {name: run.probability_N[name] for name in names}
    if boosting_N is not None:
        series += significance.loss_series(run.label_N, reference_N, boosting_N, weight_N)[1:]
        answers[BOOSTING_ROW] = boosting_N
    length = blocks.block_length(series, run.context)
    quality = blocks.quality_samples(
        run.label_N,
        answers,
        reference_N,
        run.context,
        length=length,
        resamples=significance.RESAMPLES,
        seed=SEED,
        thresholds={name: run.result.threshold_of(name) for name in answers},
        reference_threshold=run.result.threshold,
    )
    rounds, pieces = significance.piece_count(run.round_R), len(run.label_N) // length
    found = {}
    for name in names:
        latency_R = run.latency_ms_R[name]
        by_round = significance.round_values(latency_R, run.round_R)
        latency = significance.latency_samples(latency_R, run.round_R, seed=SEED)
        found[name] = {
            metric: Draws(values, rounds, by_round[metric]) for metric, values in latency.items()
        }
        found[name] |= {
            metric: Draws(values, pieces) for metric, values in quality.get(name, {}).items()
        }
    if BOOSTING_ROW in quality:
        found[BOOSTING_ROW] = {
            metric: Draws(quality[BOOSTING_ROW][metric], pieces) for metric in OF_LABELS
        }
    return found
