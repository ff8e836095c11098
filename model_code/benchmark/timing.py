"""Time engines in turns, so that load on the machine affects all of them equally.

Shapes: B batch, T = 64 steps, F = 16 features, R timed requests.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_code.engines.protocol import Predict, Predictor
from model_code.settings import BenchmarkSpec

Singles = Sequence[NDArray[np.float32]]  # windows (1, 64, 16) to cycle through
Batches = Mapping[int, NDArray[np.float32]]  # windows (B, 64, 16) by batch size
Progress = Callable[[str, int, int], None]

SETTLE_S = 0.1  # before each turn: the previous engine's threads spin for tens of milliseconds
ROUND_WARMUP = 3  # untimed calls before each turn: caches and clocks still fit the previous engine
STABLE_WINDOWS = 3
STABLE_WITHIN = 0.10


@dataclass(frozen=True)
class Timings:
    """Raw numbers of every engine.

    Attributes:
        round_R: round of each single request, the same for all engines.
        latency_ms_R: closed loop of one client, batch 1.
        throughput: windows per second by engine and batch size.
        open_ms_R: open loop at a fixed arrival rate, counted from the intended send time.
    """

    round_R: NDArray[np.int64]
    latency_ms_R: dict[str, NDArray[np.float64]] = field(repr=False)
    throughput: dict[str, dict[int, float]]
    open_ms_R: dict[str, NDArray[np.float64]] = field(repr=False)


def take_turns(
    predictors: Mapping[str, Predictor],
    singles: Singles,
    batches: Batches,
    spec: BenchmarkSpec,
    report: Progress,
    own: Mapping[str, tuple[Singles, Batches]] | None = None,
) -> Timings:
    """Time every engine: single requests, batches, open loop, each in interleaved rounds.

    Args:
        predictors: loaded engines by name.
        singles: windows (1, 64, 16) to cycle through.
        batches: windows (B, 64, 16) by batch size.
        spec: rounds and requests.
        report: called with (what, done, of).
        own: singles and batches of engines that see other features.
    """
    inputs = {name: (own or {}).get(name, (singles, batches)) for name in predictors}
    for name, predictor in predictors.items():
        alone, together = inputs[name]
        for call in range(spec.warmup):
            predictor.predict(alone[call % len(alone)])
        for x_BTF in together.values():
            predictor.predict(x_BTF)
    rounds = min(spec.rounds, spec.requests)
    each = -(-spec.requests // rounds)
    return Timings(
        round_R=np.repeat(np.arange(rounds), each),
        latency_ms_R=in_turns(
            predictors,
            {name: alone for name, (alone, _) in inputs.items()},
            rounds=rounds,
            each=each,
            report=report,
        ),
        throughput=_throughput(predictors, inputs, spec, report),
        open_ms_R=_open_loop(predictors, inputs, spec, report),
    )


def in_turns(
    predictors: Mapping[str, Predictor],
    singles: Mapping[str, Singles],
    *,
    rounds: int,
    each: int,
    report: Progress = lambda _what, _done, _of: None,
) -> dict[str, NDArray[np.float64]]:
    """Latencies in ms (R,) of single requests, closed loop of one client, engines in turns.

    Args:
        predictors: loaded engines by name.
        singles: what each is sent.
        rounds: turns of every engine.
        each: requests of a turn.
        report: called with (what, done, of).
    """
    latency: dict[str, list[float]] = {name: [] for name in predictors}
    for turn in range(rounds):
        for name in turns(list(predictors), turn):
            latency[name] += _latencies_ms(predictors[name].predict, singles[name], each)
        report("latency, rounds", turn + 1, rounds)
    return {name: np.array(values) for name, values in latency.items()}


def alone(
    predict: Predict, singles: Sequence[NDArray[np.float32]], *, warmup: int, requests: int
) -> NDArray[np.float64]:
    """Latency in ms (R,) of one engine by itself: batch 1, closed loop of one client."""
    for call in range(warmup):
        predict(singles[call % len(singles)])
    return np.array(_latencies_ms(predict, singles, requests))


def turns(names: list[str], turn: int) -> list[str]:
    """The order of a round: each starts one engine later than the previous round."""
    shift = turn % len(names)
    return names[shift:] + names[:shift]


def drift(latency_ms_R: NDArray[np.float64]) -> float:
    """Largest deviation of a third's median latency from the median, as a fraction of it.

    Above `STABLE_WITHIN` the machine changed during the measurement: the row is marked unstable.
    """
    whole = float(np.median(latency_ms_R))
    parts = np.array_split(latency_ms_R, STABLE_WINDOWS)
    return max(abs(float(np.median(part)) / whole - 1.0) for part in parts)


def settle(predict: Predict, warm: Sequence[NDArray[np.float32]]) -> None:
    """Wait until the previous engine's threads stop, then make a few untimed calls."""
    time.sleep(SETTLE_S)
    for x_BTF in warm[:ROUND_WARMUP]:
        predict(x_BTF)


def _latencies_ms(predict: Predict, singles: Singles, requests: int) -> list[float]:
    settle(predict, singles)
    return [1e3 * _seconds(predict, singles[call % len(singles)]) for call in range(requests)]


def _throughput(
    predictors: Mapping[str, Predictor],
    inputs: Mapping[str, tuple[Singles, Batches]],
    spec: BenchmarkSpec,
    report: Progress,
) -> dict[str, dict[int, float]]:
    """Windows per second: each turn sends about as many windows as the largest batch has."""
    rounds, batches = spec.throughput_rounds, tuple(next(iter(inputs.values()))[1])
    seconds = {name: dict.fromkeys(batches, 0.0) for name in predictors}
    sent = dict.fromkeys(batches, 0)
    for turn in range(rounds):
        for batch in batches:
            calls = max(1, max(batches) // batch)
            sent[batch] += calls * batch
            for name in turns(list(predictors), turn):
                predict, x_BTF = predictors[name].predict, inputs[name][1][batch]
                settle(predict, [x_BTF])
                started = time.perf_counter()
                for _ in range(calls):
                    predict(x_BTF)
                seconds[name][batch] += time.perf_counter() - started
        report("throughput, rounds", turn + 1, rounds)
    return {
        name: {batch: sent[batch] / took for batch, took in by_batch.items()}
        for name, by_batch in seconds.items()
    }


def _open_loop(
    predictors: Mapping[str, Predictor],
    inputs: Mapping[str, tuple[Singles, Batches]],
    spec: BenchmarkSpec,
    report: Progress,
) -> dict[str, NDArray[np.float64]]:
    """Requests arrive at fixed times, whether or not the previous one is answered; they queue.

    Source: Tene, "How NOT to measure latency" (coordinated omission).
    """
    rounds = STABLE_WINDOWS
    each = -(-spec.open_loop_requests // rounds)
    found: dict[str, list[float]] = {name: [] for name in predictors}
    for turn in range(rounds):
        for name in turns(list(predictors), turn):
            predict, singles = predictors[name].predict, inputs[name][0]
            settle(predict, singles)
            start = time.perf_counter() + 1.0 / spec.open_loop_hz
            for call in range(each):
                intended = start + call / spec.open_loop_hz
                time.sleep(max(0.0, intended - time.perf_counter()))
                predict(singles[call % len(singles)])
                found[name].append(1e3 * (time.perf_counter() - intended))
        report("open loop, rounds", turn + 1, rounds)
    return {name: np.array(values) for name, values in found.items()}


def _seconds(predict: Predict, x_BTF: NDArray[np.float32]) -> float:
    started = time.perf_counter_ns()
    predict(x_BTF)
    return (time.perf_counter_ns() - started) / 1e9
