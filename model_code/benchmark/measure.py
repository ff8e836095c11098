"""Measure engines against each other on the newest day's windows.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes, N test windows, R timed requests.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib import metadata

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from model_code import machine
from model_code.benchmark.ceiling import ceilings
from model_code.benchmark.regression import Regression, compare
from model_code.benchmark.result import (
    BenchmarkResult,
    BenchmarkRun,
    BesideRow,
    EngineFacts,
    EngineRow,
)
from model_code.benchmark.roster import Roster
from model_code.benchmark.significance import Paired, latency_intervals, paired
from model_code.benchmark.slices import WindowContext
from model_code.benchmark.timing import MEASURE, Progress, Timings, drift, take_turns
from model_code.engines.protocol import Predictor
from model_code.errors import EngineError, TicklineError
from model_code.features.strata import in_words
from model_code.settings import CLASS_COUNT, MAX_BATCH_SIZE, REFERENCE_ENGINE, BenchmarkSpec
from model_code.training.threshold import DEFAULT_THRESHOLD

Windows = Callable[[int, int], NDArray[np.float32]]

SINGLES = 64  # windows that single requests cycle through
PLANTED = (np.nan, np.inf, -np.inf)
PLANTED_BATCH = 8
LIBRARIES = ("torch", "onnxruntime", "openvino", "numpy")
LATENCIES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999}


def benchmark(
    predictors: Mapping[str, Predictor],
    windows: Windows,
    label_N: NDArray[np.integer],
    context: WindowContext,
    spec: BenchmarkSpec,
    *,
    facts: Mapping[str, EngineFacts] | None = None,
    unavailable: Mapping[str, str] | None = None,
    simulated: bool = False,
    threshold: float = DEFAULT_THRESHOLD,
    own_thresholds: Mapping[str, float] | None = None,
    boosting_N: NDArray[np.float64] | None = None,
    beside: Mapping[str, Predictor] | None = None,
    windows_of: Mapping[str, Windows] | None = None,
    progress: Progress | None = None,
) -> BenchmarkRun:
    """Measure latency, throughput and predictions of all engines, interleaved.

    An engine that raises is left out, with the reason among `unavailable`.

    Args:
        predictors: loaded engines by name; the FP32 reference must be among them.
        windows: (start, stop) -> x_BTF float32 of test windows start to stop - 1.
        label_N: labels of all test windows, 0 or 1.
        context: time, instrument, spread, volatility and weight of all test windows.
        spec: rounds, requests, batches.
        facts: facts about each engine known before timing.
        unavailable: engines that cannot run here, with reasons, for the table.
        simulated: the windows are from a simulated market.
        threshold: see `BenchmarkResult`.
        own_thresholds: see `BenchmarkResult`.
        boosting_N: gradient boosting's probabilities of class 1, for the gate.
        beside: engines of another model, timed in the same turns; their answers are not used.
        windows_of: windows of engines that see other features of the same rows; those engines are
            timed on them, too.
        progress: called with (what, done, of).

    Raises:
        EngineError: the FP32 reference is missing or not finite or returns another shape, there
            is no window, or gradient boosting predicts other windows.
        Exception: the reference's own.
    """
    count = len(label_N)
    if REFERENCE_ENGINE not in predictors:
        raise EngineError(f"nothing to compare against: engine {REFERENCE_ENGINE} was not built")
    if count == 0:
        raise EngineError("no test window to measure on", remedy="choose a longer test day")
    if boosting_N is not None and len(boosting_N) != count:
        raise EngineError(
            f"gradient boosting has {len(boosting_N)} predictions for {count} test windows",
            remedy="fit the baseline again on this split: tickline nightly --refresh",
        )
    report = progress or (lambda _what, _done, _of: None)
    timed = Roster({**predictors, **(beside or {})})
    known = {name: (facts or {}).get(name, EngineFacts()) for name in timed}
    before = machine.facts()
    probability_N = _predict_all(timed, predictors, windows, windows_of or {}, count, report)
    if bad := int((~np.isfinite(probability_N[REFERENCE_ENGINE])).sum()):
        raise EngineError(
            f"{REFERENCE_ENGINE} outputs NaN or infinity on {bad} of {count} windows: nothing to "
            "compare against",
            remedy="check the weights and the features for NaN",
        )
    chosen = np.linspace(0, count - 1, min(SINGLES, count)).astype(int)
    singles, batches = _requests(windows, chosen, count, spec)
    own_requests = {
        name: _requests(own_windows, chosen, count, spec)
        for name, own_windows in (windows_of or {}).items()
    }
    kinds = [(fact.device, fact.precision) for fact in known.values()]
    peak = ceilings(kinds)
    timings = take_turns(timed, singles, batches, spec, report, own_requests)
    peak = {name: max(rate, peak.get(name, 0.0)) for name, rate in ceilings(kinds).items()}
    alone, accepted = {}, {}
    for name in predictors:
        if name in timed:
            with timed.attempt(name, MEASURE):
                own_singles = own_requests[name][0] if name in own_requests else singles
                alone[name] = _dependence(timed[name], own_singles, probability_N[name][chosen])
                accepted[name] = _accepted(timed[name], own_singles[0])
    sound = [name for name in predictors if name in timed]
    reference_N = probability_N[REFERENCE_ENGINE]
    own = dict(own_thresholds or {})
    of = {name: own.get(name, threshold) for name in sound}
    rows = tuple(
        row(
            name,
            known[name],
            timings,
            _peak(peak, known[name]),
            alone[name],
            compare(
                label_N,
                probability_N[name],
                reference_N,
                threshold=of[name],
                reference_threshold=threshold,
                weight_N=context.weight_N,
            ),
            None
            if name == REFERENCE_ENGINE
            else paired(
                label_N,
                probability_N[name],
                reference_N,
                context,
                thresholds=(of[name], threshold),
            ),
            accepted[name],
        )
        for name in sound
    )
    after = {"load_1min_after": machine.facts()["load_1min"]}
    result = BenchmarkResult(
        rows=rows,
        unavailable=dict(unavailable or {}) | timed.failed,
        windows=count,
        sampling=in_words(label_N, context.weight_N),
        requests=len(timings.round_R),
        open_loop_hz=spec.open_loop_hz,
        ceilings=peak,
        beside=tuple(
            beside_row(name, known[name], timings, _peak(peak, known[name]))
            for name in beside or {}
            if name in timed
        ),
        machine=before | after | {name: metadata.version(name) for name in LIBRARIES},
        simulated=simulated,
        threshold=threshold,
        own_thresholds=own,
    )
    return BenchmarkRun(
        result,
        label_N,
        context,
        timings.round_R,
        {name: timings.latency_ms_R[name] for name in sound},
        {name: probability_N[name] for name in sound},
        boosting_N,
        timings.repeat_R,
    )


def also(
    run: BenchmarkRun,
    name: str,
    predictor: Predictor,
    windows: Windows,
    spec: BenchmarkSpec,
    fact: EngineFacts,
    progress: Progress | None = None,
) -> BenchmarkRun:
    """The run with one more row, measured after the others by the same rules, not in their turns.

    Args:
        run: of the others.
        name: of the new row.
        predictor: answers the candidate's windows.
        windows: as for `benchmark`.
        spec: as for `benchmark`.
        fact: about the new row.
        progress: called with (what, done, of).

    Raises:
        EngineError: it returns another shape.
        Exception: its own.
    """
    report = progress or (lambda _what, _done, _of: None)
    count = len(run.label_N)
    engines = Roster({name: predictor}, strict=True)
    probability_N = _predict_all(engines, (name,), windows, {}, count, report)[name]
    chosen = np.linspace(0, count - 1, min(SINGLES, count)).astype(int)
    singles, batches = _requests(windows, chosen, count, spec)
    timings = take_turns(engines, singles, batches, spec, report)
    threshold, reference_N = run.result.threshold, run.probability_N[REFERENCE_ENGINE]
    weight_N = run.context.weight_N
    added = row(
        name,
        fact,
        timings,
        _peak(run.result.ceilings, fact),
        _dependence(predictor, singles, probability_N[chosen]),
        compare(run.label_N, probability_N, reference_N, threshold=threshold, weight_N=weight_N),
        paired(
            run.label_N, probability_N, reference_N, run.context, thresholds=(threshold, threshold)
        ),
    )
    return replace(
        run,
        result=run.result.model_copy(update={"rows": (*run.result.rows, added)}),
        latency_ms_R=run.latency_ms_R | timings.latency_ms_R,
        probability_N=run.probability_N | {name: probability_N},
    )


def probability(logits_BC: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of class 1; NaN if a logit is not finite, so that it is counted."""
    finite_B = np.isfinite(logits_BC).all(axis=1)  # softmax would turn a logit of -inf into 0
    with np.errstate(invalid="ignore"):
        class_1_B: NDArray[np.float64] = softmax(logits_BC.astype(np.float64), axis=1)[:, 1]
    return np.where(finite_B, class_1_B, np.nan)


def row(
    name: str,
    facts: EngineFacts,
    timings: Timings,
    peak: float | None,
    alone: float | None,
    quality: Regression,
    against: Paired | None = None,
    accepted: int | None = None,
) -> EngineRow:
    """Summarise one engine.

    Args:
        name: of the engine.
        facts: of the engine.
        timings: of all engines.
        peak: FLOP/s that this machine reaches in the engine's precision; None if unknown.
        alone: see `EngineRow.batch_dependence`.
        quality: its predictions compared with the labels and FP32.
        against: its predictions paired with FP32's.
        accepted: see `EngineRow.accepted_non_finite`.
    """
    latency_ms_R, open_ms_R = timings.latency_ms_R[name], timings.open_ms_R[name]
    rates = timings.throughput[name]
    return EngineRow(
        engine=name,
        facts=facts,
        mean_ms=float(latency_ms_R.mean()),
        **{key: float(np.quantile(latency_ms_R, share)) for key, share in LATENCIES.items()},
        intervals=latency_intervals(latency_ms_R, timings.round_R),
        drift=drift(latency_ms_R),
        open_p50_ms=float(np.quantile(open_ms_R, 0.50)),
        open_p99_ms=float(np.quantile(open_ms_R, 0.99)),
        throughput=rates[max(rates)],
        throughput_at={str(batch): rate for batch, rate in rates.items()},
        floor_ms=1e3 * facts.flops / peak if facts.flops and peak else None,
        batch_dependence=alone,
        accepted_non_finite=accepted,
        quality=quality,
        paired=against,
    )


def beside_row(name: str, facts: EngineFacts, timings: Timings, peak: float | None) -> BesideRow:
    """Summarise the latency of one engine of another model; arguments as for `row`."""
    latency_ms_R = timings.latency_ms_R[name]
    return BesideRow(
        engine=name,
        mean_ms=float(latency_ms_R.mean()),
        **{key: float(np.quantile(latency_ms_R, share)) for key, share in LATENCIES.items()},
        interval=latency_intervals(latency_ms_R, timings.round_R).get("p50_ms"),
        floor_ms=1e3 * facts.flops / peak if facts.flops and peak else None,
    )


def _peak(ceilings: Mapping[str, float], facts: EngineFacts) -> float | None:
    return ceilings.get(f"{facts.device} {facts.precision}")


def _predict_all(
    engines: Roster,
    names: Iterable[str],
    windows: Windows,
    windows_of: Mapping[str, Windows],
    count: int,
    report: Progress,
) -> dict[str, NDArray[np.float64]]:
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for start in range(0, count, MAX_BATCH_SIZE):
        stop = min(start + MAX_BATCH_SIZE, count)
        x_BTF = windows(start, stop)
        for name, parts in found.items():
            if name not in engines:
                continue
            own = windows_of.get(name)
            with engines.attempt(name, MEASURE):
                logits_BC = engines[name].predict(own(start, stop) if own else x_BTF)
                if logits_BC.shape != (len(x_BTF), CLASS_COUNT):
                    raise EngineError(
                        f"engine {name} returns {logits_BC.shape}, expected (batch, 2)"
                    )
                parts.append(probability(logits_BC))
        report("predictions", stop, count)
    return {name: np.concatenate(parts) for name, parts in found.items() if name in engines}


def _requests(
    windows: Windows, chosen: NDArray[np.int64], count: int, spec: BenchmarkSpec
) -> tuple[list[NDArray[np.float32]], dict[int, NDArray[np.float32]]]:
    """What is timed: single windows, and a batch of each size."""
    singles = [windows(i, i + 1).copy() for i in chosen]
    return singles, {size: _repeated(windows, count, size) for size in spec.batches}


def _repeated(windows: Windows, count: int, size: int) -> NDArray[np.float32]:
    """A batch of exactly this size; windows repeat if the day has too few."""
    x_BTF = windows(0, min(size, count))
    return np.ascontiguousarray(np.resize(x_BTF, (size, *x_BTF.shape[1:])))


def _dependence(
    predictor: Predictor, singles: list[NDArray[np.float32]], together_M: NDArray[np.float64]
) -> float | None:
    """Largest probability difference between a window alone and in its batch; 0 if correct."""
    alone_M = np.concatenate([probability(predictor.predict(x_BTF)) for x_BTF in singles])
    worst = float(np.abs(alone_M - together_M).max())
    return worst if np.isfinite(worst) else None


def _accepted(predictor: Predictor, window_BTF: NDArray[np.float32]) -> int:
    """Requests with NaN or infinity that are answered, alone and in a batch, of `PLANTED`."""
    accepted = 0
    for value, step, size in itertools.product(PLANTED, (0, -1), (1, PLANTED_BATCH)):
        x_BTF = np.repeat(window_BTF, size, axis=0)
        x_BTF[-1, step, 0] = value
        with contextlib.suppress(TicklineError), np.errstate(all="ignore"):
            predictor.predict(x_BTF)
            accepted += 1
    return accepted
