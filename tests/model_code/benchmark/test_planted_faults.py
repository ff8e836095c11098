"""Faults planted in engines, measured as engines are, judged by the shipped goals.

Shapes: B batch, T = 64 steps, F = 16 features, D features of the encoder, N windows, R requests.
"""

import copy
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_code.benchmark import measure, timing
from model_code.benchmark.gate import judge_run
from model_code.benchmark.goals import load_goals
from model_code.benchmark.measure import benchmark
from model_code.benchmark.verdict import Verdict
from model_code.engines.protocol import check_windows
from model_code.models.network import FinancialPredictor
from model_code.settings import BenchmarkSpec, NetworkSpec
from tests.support.benchmark import context

COUNT = 1024
SPEC = BenchmarkSpec(
    warmup=1,
    requests=20,
    rounds=5,
    batches=(1, 64),
    throughput_rounds=1,
    open_loop_hz=500,
    open_loop_requests=10,
)
# as many requests as the shipped goals need, on a clock that costs nothing
TIMED = SPEC.model_copy(update={"requests": 1000, "rounds": 20, "open_loop_requests": 30})
LOAD_S = 10.0  # many rounds: engines that are not measured in turns are measured under another load
MACHINE = {"answers within 10 ms", "no slower than the champion"}  # a busy machine may miss these
ENGINE = "onnxruntime-fp32"  # the name of the faulty engines


class Served:
    """A network as an engine."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def predict(self, x_BTF):
        check_windows(x_BTF)
        with torch.inference_mode():
            return self.network(torch.from_numpy(np.ascontiguousarray(x_BTF))).float().numpy()


class Clamping(Served):
    """Answers NaN and infinity as OpenVINO does: its clamp turns them into a bound."""

    def predict(self, x_BTF):
        return super().predict(np.nan_to_num(x_BTF, nan=10.0, posinf=10.0, neginf=-10.0))


class HalfLayerNorm(nn.Module):
    """Layer normalisation that sums squares in half precision: it overflows above 65,504."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, h_BTD: Tensor) -> Tensor:
        h_BTD = h_BTD.half()
        centred_BTD = h_BTD - h_BTD.mean(dim=-1, keepdim=True)
        variance_BT1 = centred_BTD.square().mean(dim=-1, keepdim=True)
        h_BTD = centred_BTD / (variance_BT1 + self.norm.eps).sqrt()
        return h_BTD.float() * self.norm.weight + self.norm.bias


class Swapped(nn.Module):
    """Classes swapped."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BTF: Tensor) -> Tensor:
        logits_BC: Tensor = self.network(x_BTF)
        return logits_BC.flip(1)


class AcrossTheBatch(nn.Module):
    """Ignores that the batch comes first: windows attend to each other, not steps."""

    def __init__(self, network: FinancialPredictor) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BTF: Tensor) -> Tensor:
        inner = self.network
        h_BDT = inner.convolution(inner.standardise(x_BTF).transpose(1, 2))
        h_TBD = inner.encoder(h_BDT.permute(2, 0, 1))
        logits_BC: Tensor = inner.head(h_TBD.mean(dim=0))
        return logits_BC


def quantised(network: FinancialPredictor, calibration_BTF: Tensor) -> nn.Module:
    """Weights and inputs of matrix products in int8, with ranges from the calibration windows."""
    network = copy.deepcopy(network)
    ranges: dict[str, tuple[float, float]] = {}
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv1d | nn.Linear) and "out_proj" not in name
    }

    def watch(name: str) -> Callable[..., None]:
        def seen(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            ranges[name] = (float(inputs[0].min()), float(inputs[0].max()))

        return seen

    torch.backends.mha.set_fastpath_enabled(False)  # it would bypass the replaced layers
    try:
        hooks = [layer.register_forward_pre_hook(watch(n)) for n, layer in layers.items()]
        with torch.no_grad():
            network(calibration_BTF)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    for hook in hooks:
        hook.remove()

    def fake(x: Tensor, low: float, high: float) -> Tensor:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-6) / 255
        zero = round(-128 - low / scale)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)

    for name, layer in layers.items():
        low, high = ranges[name]
        with torch.no_grad():
            reach = float(layer.weight.abs().max())
            layer.weight.copy_(fake(layer.weight, -reach, reach))
        layer.register_forward_pre_hook(
            lambda _layer, inputs, low=low, high=high: (fake(inputs[0], low, high),)
        )
    return network


class Market:
    """A network, windows, and labels that follow its probabilities."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        random = np.random.default_rng(7)
        network = FinancialPredictor(NetworkSpec(d_model=16, heads=2, layers=2, feed_forward=32))
        self.network = network.eval()
        level = random.normal(size=(COUNT, 1, 16)) * 2
        self.x_BTF = (level + random.normal(size=(COUNT, 64, 16))).astype(np.float32)
        with torch.no_grad():
            # large values in the residual stream are valid: LayerNorm in FP32 handles them
            network.convolution.weight.mul_(1000)
            logits_BC = network(torch.from_numpy(self.x_BTF))
            spread = (logits_BC[:, 1] - logits_BC[:, 0]).std()
            network.head.weight.mul_(4 / spread)
            network.head.bias.zero_()
            margin = network(torch.from_numpy(self.x_BTF)) @ torch.tensor([-1.0, 1.0])
            network.head.bias.copy_(torch.tensor([margin.median(), 0.0]))
            p_N = torch.softmax(network(torch.from_numpy(self.x_BTF)), dim=1)[:, 1].numpy()
        self.label_N = (random.uniform(size=COUNT) < p_N).astype(np.int8)

    def missed(self, network: nn.Module, served: type[Served] = Served) -> set[str]:
        """Goals that an engine of this network misses, compared with FP32 of the correct one."""
        predictors = {"torch-fp32": Served(self.network), ENGINE: served(network)}
        run = benchmark(
            predictors,
            lambda a, b: self.x_BTF[a:b],
            self.label_N,
            context(COUNT),
            SPEC,
            boosting_N=np.full(COUNT, 0.5),
        )
        verdict = judge_run(run, load_goals(), simulated=False)[ENGINE]
        missed = {row.name for row in verdict.rows if row.passed is False}
        assert (verdict.verdict == "fail") is bool(missed)
        return missed - MACHINE


@pytest.fixture(scope="module")
def market() -> Market:
    return Market()


@pytest.fixture(autouse=True)
def _peak(monkeypatch):
    monkeypatch.setattr(measure, "ceilings", lambda _kinds: {})
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)


def test_a_correct_engine_misses_no_goal(market):
    assert market.missed(copy.deepcopy(market.network)) == set()


def test_an_engine_that_answers_nan_and_infinity(market):
    assert market.missed(market.network, Clamping) == {"NaN and infinity are refused"}


def test_layer_norm_overflow_in_half(market):
    network = copy.deepcopy(market.network)
    for layer in network.encoder.layers:
        layer.norm1, layer.norm2 = HalfLayerNorm(layer.norm1), HalfLayerNorm(layer.norm2)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        missed = market.missed(network)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert {"AUC keeps up with FP32", "probabilities stay close to FP32"} <= missed


def test_a_swapped_class(market):
    missed = market.missed(Swapped(market.network))
    assert {
        "accuracy keeps up with FP32",
        "AUC keeps up with FP32",
        "better than guessing",
    } <= missed
    assert "an answer does not depend on its batch" not in missed


def test_int8_without_calibration(market):
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        zeros = torch.zeros(64, 64, 16)
        missed = market.missed(quantised(market.network, zeros))
        calibrated = market.missed(quantised(market.network, torch.from_numpy(market.x_BTF)))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    wanted = {"AUC keeps up with FP32", "probabilities stay close to FP32"}
    assert wanted <= missed
    assert "AUC keeps up with FP32" not in calibrated  # the fault is in the ranges, not in int8


def test_a_batch_dependent_network(market):
    missed = market.missed(AcrossTheBatch(market.network))
    assert "an answer does not depend on its batch" in missed


class Clock:
    """Replaces `time` in the timing code: it advances only during computing and sleeping."""

    def __init__(self, seed: int) -> None:
        self.now, self.turn = 0.0, 0
        # the machine's load, the same for all engines, drifts from one level to the next
        self._load_P = np.random.default_rng(seed).lognormal(0, 0.1, 1000)

    def perf_counter(self) -> float:
        return self.now

    def perf_counter_ns(self) -> int:
        return round(1e9 * self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.turn += seconds == timing.SETTLE_S  # an engine's turn begins

    def compute(self, seconds: float) -> None:
        place, part = divmod(self.now / LOAD_S, 1)
        before, after = self._load_P[int(place) : int(place) + 2]
        self.now += seconds * float(before + part * (after - before))


class Planted:
    """An engine with planted predictions and latency: a turn effect and a heavy tail."""

    def __init__(self, clock: Clock, seed: int, ms: float, logit_N: np.ndarray) -> None:
        self.clock, self.ms, self.logit_N = clock, ms, logit_N
        self.random = np.random.default_rng(seed)
        self.turn, self.turn_factor = -1, 1.0

    def predict(self, x_BTF: np.ndarray) -> np.ndarray:
        check_windows(x_BTF)
        if self.turn != self.clock.turn:
            self.turn, self.turn_factor = self.clock.turn, self.random.lognormal(0, 0.015)
        tail = self.random.uniform(1.5, 3) if self.random.uniform() < 0.01 else 1.0
        noise = self.turn_factor * (0.95 + self.random.gamma(2, 0.025)) * tail
        self.clock.compute(1e-3 * self.ms * len(x_BTF) * noise)
        logit_B = self.logit_N[x_BTF[:, 0, 0].astype(int)]
        return np.stack([np.zeros_like(logit_B), logit_B], axis=1)


def measured(
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    engines_ms: Mapping[str, float],
    count: int,
    faults: Mapping[str, int] | None = None,
) -> dict[str, Verdict]:
    """Verdicts on engines with these milliseconds; `faults`: window with a NaN prediction."""
    monkeypatch.setattr(timing, "SETTLE_S", 0.1)
    monkeypatch.setattr(timing, "time", clock := Clock(seed))
    random = np.random.default_rng(11)
    logit_N = random.normal(0, 2, count).astype(np.float32)
    label_N = (random.uniform(size=count) < 1 / (1 + np.exp(-logit_N))).astype(np.int8)
    engines = {}
    for index, (name, ms) in enumerate(engines_ms.items()):
        answers_N = logit_N.copy()
        if faults and name in faults:
            answers_N[faults[name]] = np.nan
        engines[name] = Planted(clock, 100 * seed + index, ms, answers_N)

    def numbers(start: int, stop: int) -> np.ndarray:
        """Windows that contain only their own index."""
        x_BTF = np.zeros((stop - start, 64, 16), np.float32)
        x_BTF[:, 0, 0] = np.arange(start, stop)
        return x_BTF

    run = benchmark(
        engines, numbers, label_N, context(count), TIMED, boosting_N=np.full(count, 0.5)
    )
    return judge_run(run, load_goals(), simulated=False)


@pytest.fixture(scope="module")
def verdicts() -> list[dict[str, Verdict]]:
    """Of ten measurements beside a champion: an engine 5% slower than it, and one just as fast."""
    engines_ms = {"torch-fp32": 3.0, "champion": 1.0, ENGINE: 1.05, "openvino-fp32": 1.0}
    found = []
    for seed in range(10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measure, "ceilings", lambda _kinds: {})
            found.append(measured(patch, seed, engines_ms, 600))
    return found


def test_an_engine_5_percent_slower_than_the_champion_always_fails(verdicts):
    slow = [found[ENGINE] for found in verdicts]
    assert {verdict.verdict for verdict in slow} == {"fail"}
    assert {verdict.reason for verdict in slow} == {"missed: no slower than the champion"}


def test_an_engine_as_fast_as_the_champion_rarely_fails(verdicts):
    equal = [found["openvino-fp32"].verdict for found in verdicts]
    assert set(equal) <= {"pass", "fail"}
    # 95% intervals: one in twenty may miss
    assert equal.count("fail") <= 1


def test_nan_on_one_window_in_ten_thousand(monkeypatch):
    engines_ms = {"torch-fp32": 3.0, ENGINE: 1.0, "openvino-fp32": 1.0}
    found = measured(monkeypatch, 0, engines_ms, 10_000, faults={ENGINE: 4321})
    assert found["openvino-fp32"].verdict == "no baseline"
    assert found[ENGINE].verdict == "fail"
    finite = next(row for row in found[ENGINE].rows if row.metric == "non_finite")
    assert (finite.value, finite.passed) == (1.0, False)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_engines_of_hundredths_of_a_millisecond_are_equally_fast(seed, monkeypatch):
    """Beside a champion of 0.03 ms: one as fast, and one of 0.06 ms, whose loss counts."""
    engines_ms = {"torch-fp32": 0.2, "champion": 0.03, ENGINE: 0.06, "openvino-fp32": 0.03}
    found = measured(monkeypatch, seed, engines_ms, 600)
    assert found["openvino-fp32"].verdict == "pass"
    assert found[ENGINE].reason == "missed: no slower than the champion"
