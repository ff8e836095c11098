"""The row of the engine behind Triton: the one that would be staged, or why it has no figures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from model_code.artifacts import ArtifactRef, ArtifactStore
from model_code.benchmark import timing
from model_code.benchmark.goals import Goals
from model_code.benchmark.result import BenchmarkRun, Served
from model_code.errors import ServingError
from model_code.settings import TRITON_ROW, BenchmarkSpec, ServingSpec, Settings
from tasks.caching.stage import RunRef
from tasks.nightly import benchmark as stage
from tasks.nightly.records import BuiltEngine
from tests.support.benchmark import benchmark_run, row_of
from tests.support.engines import Answers, Fails

COUNT = 60
X = np.random.default_rng(0).normal(size=(COUNT, 64, 16)).astype(np.float32)
LABEL = (X[:, -1, 0] > 0).astype(np.int8)
ANSWER = 1 / (1 + np.exp(-X[:, -1, 0].astype(np.float64)))
FAST = "openvino-fp32"
SPEC = BenchmarkSpec(
    warmup=1, requests=20, rounds=4, batches=(1, 8), throughput_rounds=1,
    open_loop_hz=1000, open_loop_requests=3,
)  # fmt: skip
RUN = RunRef(settings=Settings(), mlflow_run_id="m", flow_run_id="f")
SERVING = ServingSpec(instances=2)
SERVED = Served(engine=FAST, server="a server", queue_ms=0.1, compute_ms=0.2, loads=())


def goals(slowest_ms: float) -> Goals:
    fast = {"name": "a", "metric": "p50_ms", "kind": "threshold", "maximum": slowest_ms}
    return Goals.model_validate({"goals": (fast,), "minimum_events": 1})


def run(**p50_ms: float) -> BenchmarkRun:
    names = {name.replace("_", "-"): value for name, value in p50_ms.items()}
    return benchmark_run(
        LABEL,
        dict.fromkeys(names, ANSWER),
        {name: np.full(SPEC.requests, value) for name, value in names.items()},
    )


def through_triton(
    measured: BenchmarkRun, spec: BenchmarkSpec = SPEC, asked: Goals | None = None
) -> BenchmarkRun:
    engines = tuple(
        BuiltEngine(
            name=row.engine,
            folder=ArtifactRef.of(name=row.engine, sha256=""),
            unavailable=None,
            mlflow_run_id=None,
        )
        for row in measured.result.rows
    )
    return stage._through_triton(
        RUN, measured, engines, lambda a, b: X[a:b], spec, asked, SERVING, lambda *_: None
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SETTLE_S", 0.0)
    monkeypatch.setattr(stage, "unservable", lambda *_: None)
    monkeypatch.setattr(ArtifactStore, "open", ArtifactStore.path)


def serve(monkeypatch: pytest.MonkeyPatch, predictor: Answers) -> list[str]:
    """Stand for the server; return the names of the engines it was given."""
    asked: list[str] = []

    @contextmanager
    def served(_: Settings, engine: str, __: Path, serving: ServingSpec) -> Iterator[Any]:
        assert serving == SERVING, "as it would be staged"
        asked.append(engine)
        yield SimpleNamespace(predictor=predictor, under_load=lambda *_: SERVED)

    monkeypatch.setattr(stage, "served", served)
    return asked


@pytest.mark.parametrize(
    ("slowest_ms", "pin", "engine"),
    [
        (9.0, None, "openvino-bf16"),  # the fastest
        (9.0, "onnxruntime-fp32", "onnxruntime-fp32"),
    ],
)
def test_the_engine_that_would_be_staged_is_served(
    slowest_ms: float, pin: str | None, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = serve(monkeypatch, Answers())
    spec = SPEC.model_copy(update={"pin": pin})
    measured = run(torch_fp32=9.0, onnxruntime_fp32=2.0, openvino_bf16=1.0)
    found = through_triton(measured, spec, goals(slowest_ms))
    assert asked == [engine]
    row = row_of(found.result, TRITON_ROW)
    assert row.facts.note.startswith(f"serves {engine}, measured after the engines")
    assert row.quality.flips == 0
    assert found.result.served == SERVED


def test_the_fastest_engine_is_not_served_if_it_fails_the_gate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = serve(monkeypatch, Answers())
    measured = run(torch_fp32=9.0, onnxruntime_fp32=2.0, openvino_bf16=1.0)
    broken = {**measured.probability_N, "openvino-bf16": 1.0 - ANSWER}
    measured = benchmark_run(LABEL, broken, measured.latency_ms_R)
    auc = {"name": "a", "metric": "auc", "kind": "threshold", "minimum": 0.5}
    through_triton(measured, asked=Goals.model_validate({"goals": (auc,), "minimum_events": 1}))
    assert asked == ["onnxruntime-fp32"]


@pytest.mark.parametrize(
    ("refuses", "predictor", "reason"),
    [
        (True, Answers(), "failed: load: the model is refused"),
        (False, Fails(0), "failed: measure: RuntimeError: call 0 failed"),
        (False, Fails(30), "failed: measure: RuntimeError: call 30 failed"),
    ],
)
def test_a_server_that_cannot_is_a_row_too(
    refuses: bool, predictor: Answers, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, predictor)
    if refuses:

        @contextmanager
        def refusing(*_: object) -> Iterator[Any]:
            raise ServingError("the model is refused", where="a server")
            yield

        monkeypatch.setattr(stage, "served", refusing)
    measured = run(torch_fp32=9.0, openvino_fp32=1.0)
    found = through_triton(measured, asked=goals(9.0))
    assert found.result.unavailable == {TRITON_ROW: reason}
    assert found.result.rows == measured.result.rows


def test_without_an_engine_or_a_wish_nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, Answers())
    only_torch = run(torch_fp32=9.0)
    reasons = [
        through_triton(measured, spec, given).result.unavailable[TRITON_ROW]
        for measured, spec, given in (
            (only_torch, SPEC, goals(9.0)),
            (only_torch, SPEC, None),
            (only_torch, SPEC.model_copy(update={"served": False}), goals(9.0)),
        )
    ]
    excluded = "excluded by the spec"
    assert reasons == ["no available engine that Triton can serve", excluded, excluded]
    monkeypatch.setattr(stage, "unservable", lambda *_: "not installed")
    without = through_triton(run(torch_fp32=9.0, openvino_fp32=1.0), asked=goals(9.0))
    assert without.result.unavailable == {TRITON_ROW: "not installed"}
    assert asked == []
