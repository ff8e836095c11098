"""The gate: from a measured run to verdicts and a choice, without inference."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from model_code.benchmark import blocks, significance
from model_code.benchmark.goals import Goals, load_goals
from model_code.benchmark.result import BenchmarkRun
from model_code.benchmark.slices import sliced, worst_flip_fraction
from model_code.benchmark.timing import STABLE_WITHIN
from model_code.benchmark.verdict import Draws, Evidence, Verdict, decide
from model_code.errors import GateError
from model_code.repository.triton_config import SERVABLE
from model_code.settings import CHAMPION_ROW, ENGINE_NAMES, REFERENCE_ENGINE

__all__ = ["Choice", "Goals", "Verdict", "choose", "evidence", "judge_run", "load_goals", "places"]

TIE = 0.02  # medians that may be this close count as equally fast
EXACTNESS = ("fp32", "bf16", "fp16", "int8")
CHANGED = frozenset({"pruned", "sparse"})  # engines of a network with fewer weights
SEED = 0


class Choice(BaseModel):
    """Which engine to stage.

    Attributes:
        engine: the one to stage; where its verdict is "fail", the one that came nearest, to show.
        verdict: of that engine; "fail" where nothing may be staged.
        reason: why this one, in one sentence.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    engine: str
    verdict: Verdict
    reason: str


def judge_run(run: BenchmarkRun, goals: Goals, *, simulated: bool) -> dict[str, Verdict]:
    """The verdict of every measured engine that Triton can serve, in the table's order.

    Raises:
        GateError: there are no goals, or the run has no FP32 reference.
    """
    if run.result.row(REFERENCE_ENGINE) is None:
        raise GateError(
            f"the run has no {REFERENCE_ENGINE}, so there is nothing to compare with",
            remedy="measure again with it",
        )
    found = evidence(run, resample=any(goal.confidence is not None for goal in goals.goals))
    champion = found.get(CHAMPION_ROW)
    return {
        name: decide(candidate, found[REFERENCE_ENGINE], champion, goals, simulated=simulated)
        for name, candidate in found.items()
        if name in SERVABLE
    }


def evidence(run: BenchmarkRun, *, resample: bool) -> dict[str, Evidence]:
    """The numbers of FP32, of the champion and of every engine that Triton can serve.

    Args:
        run: holds the FP32 reference.
        resample: draw for intervals as well, which takes a second or two.
    """
    wanted = {REFERENCE_ENGINE, CHAMPION_ROW, *SERVABLE}
    rows = [row for row in run.result.rows if row.engine in wanted]
    draws = _draws(run, [row.engine for row in rows]) if resample else {}
    return {
        row.engine: Evidence(
            row.metrics() | _slice_metrics(run, row.engine), draws.get(row.engine, {})
        )
        for row in rows
    }


def choose(run: BenchmarkRun, verdicts: Mapping[str, Verdict], pin: str | None = None) -> Choice:
    """The engine to stage: the pinned one, or the fastest at batch 1 that did not fail.

    Engines whose median may lie within 2% of the fastest one's, by the 95% interval of the
    ratio, are equally fast. Of them the most exact is taken, then the first in table order, so
    that the choice does not follow the noise of one measurement.

    Args:
        run: what was measured.
        verdicts: from `judge_run`.
        pin: take this engine or none.

    Raises:
        GateError: no engine that Triton can serve was measured.
    """
    if not verdicts:
        raise GateError(
            "no engine that Triton can serve was measured, so none can be chosen",
            remedy="see what this machine lacks: tickline engines",
        )
    if pin is not None:
        return _pinned(run, verdicts, pin)
    fit = [name for name, verdict in verdicts.items() if verdict.verdict != "fail"]
    if not fit:
        engine = _nearest(verdicts)
        return Choice(
            engine=engine,
            verdict=verdicts[engine],
            reason=f"every engine failed the gate; {engine} came nearest",
        )
    median = {row.engine: row.p50_ms for row in run.result.rows}
    fastest = min(fit, key=lambda name: median[name])
    ties = sorted(
        (name for name in fit if name == fastest or _equally_fast(run, name, fastest)),
        key=_preference,
    )
    reason = f"{fastest} is the fastest that did not fail"
    if len(ties) > 1:
        reason = f"{ties[0]} is the first of the equally fast that did not fail: {', '.join(ties)}"
    return Choice(engine=ties[0], verdict=verdicts[ties[0]], reason=reason)


def places(run: BenchmarkRun) -> tuple[tuple[str, ...], ...]:
    """Engines by batch-1 latency, the fastest place first; what cannot be told apart shares one.

    Told apart is what lies further from the fastest of its place, by the 95% interval of the
    ratio, than the median of a stable row may drift within one measurement (10%): the next
    measurement, in another mood of the machine, might turn them round. `choose` is stricter, for it
    compares within one measurement only. Within a place the order is the table's.
    """
    rows = {row.engine: row.p50_ms for row in run.result.rows}
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
        return Choice(engine=pin, verdict=verdicts[pin], reason=f"{pin} is pinned and {outcome}")
    why = run.result.unavailable.get(pin, "not measured")
    reason = f"{pin} is pinned, but cannot be judged: {why}"
    engine = _nearest(verdicts)
    # another engine must not take the pinned one's place, however good
    refused = {"verdict": "fail", "promotable": False, "reason": reason}
    return Choice(engine=engine, verdict=verdicts[engine].model_copy(update=refused), reason=reason)


def _nearest(verdicts: Mapping[str, Verdict]) -> str:
    """The engine that misses fewest goals."""
    return min(verdicts, key=lambda name: sum(row.passed is False for row in verdicts[name].rows))


def _equally_fast(run: BenchmarkRun, name: str, fastest: str, within: float = TIE) -> bool:
    ratio = significance.latency_ratio(
        run.latency_ms_R[name], run.latency_ms_R[fastest], run.round_R, seed=SEED
    )
    return ratio is not None and ratio.low <= 1.0 + within


def _preference(name: str) -> tuple[bool, int, int]:
    """The trained network before one of fewer weights, then by precision, then table order."""
    parts = name.split("-")
    exactness = EXACTNESS.index(parts[-1]) if parts[-1] in EXACTNESS else 0
    place = ENGINE_NAMES.index(name) if name in ENGINE_NAMES else len(ENGINE_NAMES)
    return not CHANGED.isdisjoint(parts), exactness, place


def _slice_metrics(run: BenchmarkRun, name: str) -> dict[str, float | None]:
    answers = run.probability_N
    rows = sliced(run.context, run.label_N, answers[name], answers[REFERENCE_ENGINE])
    return {"slice_flip_fraction": worst_flip_fraction(rows)}


def _draws(run: BenchmarkRun, names: Sequence[str]) -> dict[str, dict[str, Draws]]:
    """Every resampled metric by engine; all engines in the same draws, hence paired."""
    reference_N = run.probability_N[REFERENCE_ENGINE]
    series = significance.loss_series(run.label_N, reference_N, run.probability_N.get(CHAMPION_ROW))
    length = blocks.block_length(series, run.context)
    quality = blocks.quality_samples(
        run.label_N,
        {name: run.probability_N[name] for name in names},
        reference_N,
        run.context,
        length=length,
        resamples=significance.RESAMPLES,
        seed=SEED,
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
    return found
