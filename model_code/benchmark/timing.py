"""Time engines in turns, so that load on the machine affects all of them equally.

Shapes: B batch, T = 64 steps, F = 16 features, R timed requests.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_code.benchmark.roster import Roster
from model_code.engines.protocol import Predict, Predictor
from model_code.settings import BenchmarkSpec

Singles = Sequence[NDArray[np.float32]]  # windows (1, 64, 16) to cycle through
Batches = Mapping[int, NDArray[np.float32]]  # windows (B, 64, 16) by batch size
Progress = Callable[[str, int, int], None]

SETTLE_S = 0.1  # before each turn: the previous engine's threads spin for tens of milliseconds
ROUND_WARMUP = 3  # untimed calls before each turn: caches and clocks still fit the previous engine
STABLE_WINDOWS = 3
STABLE_WITHIN = 0.10
MEASURE = "measure"  # step of a failure


@dataclass(frozen=True)
class Timings:
    """Raw numbers of every engine.

    Attributes:
        round_R: round of each single request, the same for all engines.
        repeat_R: repetition of each single request, likewise.
        latency_ms_R: closed loop of one client, batch 1.
        throughput: windows per second by engine and batch size.
        open_ms_R: open loop at a fixed arrival rate, counted from the intended send time.
    """

    round_R: NDArray[np.int64]
    repeat_R: NDArray[np.int64]
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

    Single requests are measured `spec.repeats` times, the other loads in between.
    An engine of a `Roster` that raises leaves it; it has no complete figures then.

    Args:
        predictors: loaded engines by name.
        singles: windows (1, 64, 16) to cycle through.
        batches: windows (B, 64, 16) by batch size.
        spec: rounds and requests.
        report: called with (what, done, of).
        own: singles and batches of engines that see other features.
    """
    predictors = Roster.of(predictors)
    inputs = {name: (own or {}).get(name, (singles, batches)) for name in predictors}
    for name in predictors:
        alone, together = inputs[name]
        with predictors.attempt(name, "warm up"):
            for call in range(spec.warmup):
                predictors[name].predict(alone[call % len(alone)])
            for x_BTF in together.values():
                predictors[name].predict(x_BTF)
    rounds = min(spec.rounds, spec.requests)
    each = -(-spec.requests // rounds)
    of_repeat = [part for part in np.array_split(np.arange(rounds), spec.repeats) if len(part)]
    found: dict[str, list[float]] = {name: [] for name in predictors}

    def singly(part: NDArray[np.int64]) -> None:
        _in_turns(predictors, {name: own[0] for name, own in inputs.items()}, part, each, found)
        report("latency, rounds", int(part[-1]) + 1, rounds)

    singly(of_repeat[0])
    throughput = _throughput(predictors, inputs, spec, report)
    for part in of_repeat[1:-1]:
        singly(part)
    open_ms_R = _open_loop(predictors, inputs, spec, report)
    for part in of_repeat[1:][-1:]:
        singly(part)
    return Timings(
        round_R=np.repeat(np.arange(rounds), each),
        repeat_R=np.repeat(np.concatenate([[i] * len(p) for i, p in enumerate(of_repeat)]), each),
        latency_ms_R={name: np.array(found[name]) for name in predictors},
        throughput=throughput,
        open_ms_R=open_ms_R,
    )


def in_turns(
    predictors: Mapping[str, Predictor],
    singles: Mapping[str, Singles],
    *,
    rounds: int,
    each: int,
) -> dict[str, NDArray[np.float64]]:
    """Latencies in ms (R,) of single requests, closed loop of one client, engines in turns.

    Args:
        predictors: loaded engines by name.
        singles: what each is sent.
        rounds: turns of every engine.
        each: requests of a turn.
    """
    found: dict[str, list[float]] = {name: [] for name in predictors}
    _in_turns(Roster.of(predictors), singles, range(rounds), each, found)
    return {name: np.array(values) for name, values in found.items()}


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


def _in_turns(
    predictors: Roster,
    singles: Mapping[str, Singles],
    rounds: Iterable[int],
    each: int,
    found: Mapping[str, list[float]],
) -> None:
    """Add the latencies of these rounds to `found`."""
    for turn in rounds:
        for name in turns(list(predictors), turn):
            with predictors.attempt(name, MEASURE):
                found[name].extend(_latencies_ms(predictors[name].predict, singles[name], each))


def _throughput(
    predictors: Roster,
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
                with predictors.attempt(name, MEASURE):
                    settle(predict, [x_BTF])
                    started = time.perf_counter()
                    for _ in range(calls):
                        predict(x_BTF)
                    seconds[name][batch] += time.perf_counter() - started
        report("throughput, rounds", turn + 1, rounds)
    return {
        name: {batch: sent[batch] / took for batch, took in seconds[name].items()}
        for name in predictors
    }


def _open_loop(
    predictors: Roster,
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
            with predictors.attempt(name, MEASURE):
                found[name] += _at_fixed_times(predict, singles, each, spec.open_loop_hz)
        report("open loop, rounds", turn + 1, rounds)
    return {name: np.array(found[name]) for name in predictors}


def _at_fixed_times(
    predict: Predict, singles: Singles, requests: int, rate_hz: float
) -> list[float]:
    settle(predict, singles)
    took, start = [], time.perf_counter() + 1.0 / rate_hz
    for call in range(requests):
        intended = start + call / rate_hz
        time.sleep(max(0.0, intended - time.perf_counter()))
        predict(singles[call % len(singles)])
        took.append(1e3 * (time.perf_counter() - intended))
    return took


def _seconds(predict: Predict, x_BTF: NDArray[np.float32]) -> float:
    started = time.perf_counter_ns()
    predict(x_BTF)
    return (time.perf_counter_ns() - started) / 1e9
