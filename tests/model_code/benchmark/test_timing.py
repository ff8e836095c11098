import itertools
import time

import numpy as np
import pytest

from model_code.benchmark import timing
from model_code.settings import BenchmarkSpec

SINGLES = [np.zeros((1, 64, 16), np.float32)]


def test_each_round_starts_one_engine_later():
    names = ["a", "b", "c"]
    assert [timing.turns(names, turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert timing.turns(names, 1) == ["b", "c", "a"]
    assert names == ["a", "b", "c"]


def test_drift_is_the_worst_third_against_the_whole():
    steady = np.full(30, 2.0)
    assert timing.drift(steady) == 0.0
    slower = np.concatenate([np.full(20, 2.0), np.full(10, 3.0)])
    assert timing.drift(slower) == pytest.approx(0.5)


class Slow:
    """Takes far longer than the interval between two arrivals."""

    def predict(self, x_BTF):
        time.sleep(0.02)
        return np.zeros((len(x_BTF), 2), np.float32)


def test_an_engine_that_falls_behind_has_queueing_latency():
    spec = BenchmarkSpec(
        warmup=1,
        requests=3,
        rounds=1,
        batches=(1,),
        throughput_rounds=1,
        open_loop_hz=500,
        open_loop_requests=15,
    )
    found = timing.take_turns({"slow": Slow()}, SINGLES, {1: SINGLES[0]}, spec, lambda *_: None)
    # the closed loop has no queue; in the open loop the fifth waits for the four before it
    assert found.open_ms_R["slow"].max() > 60.0
    each = found.open_ms_R["slow"].reshape(3, 5)
    assert (np.diff(each, axis=1) > 0).all()


class Watched:
    """Records engine, start and end of each call."""

    def __init__(self, name, diary):
        self.name, self.diary = name, diary

    def predict(self, x_BTF):
        began = time.perf_counter()
        self.diary.append((self.name, began, time.perf_counter()))
        return np.zeros((len(x_BTF), 2), np.float32)


def test_an_engine_waits_until_the_previous_engines_threads_stop_spinning():
    spec = BenchmarkSpec(
        warmup=1,
        requests=4,
        rounds=2,
        batches=(1,),
        throughput_rounds=2,
        open_loop_hz=1000,
        open_loop_requests=3,
    )
    diary: list[tuple[str, float, float]] = []
    engines = {name: Watched(name, diary) for name in ("a", "b")}
    timing.take_turns(engines, SINGLES, {1: SINGLES[0]}, spec, lambda *_: None)
    timed = diary[2 * (spec.warmup + 1) :]  # the initial warm-up is not timed
    changes = [
        began - ended
        for (before, _, ended), (name, began, _) in itertools.pairwise(timed)
        if name != before
    ]
    assert len(changes) >= 7  # of 2 + 2 + 3 rounds
    assert min(changes) >= timing.SETTLE_S
