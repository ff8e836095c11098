"""Which engines a candidate gets."""

import datetime as dt
from typing import Any

import pytest

from flows import candidate
from model_code.artifacts import ArtifactRef
from model_code.engines.registry import ENGINES
from model_code.errors import EngineError
from model_code.settings import BenchmarkSpec, NightlySpec
from tasks.nightly.records import (
    BuiltEngine,
    ExportedNetwork,
    Plan,
    SourceDay,
    SplitWindows,
    TrainedNetwork,
)

DAY = SourceDay(
    market="simulated:", date=dt.date(2024, 8, 9), symbol="SIMA.sim", digest="0", simulated=True
)
PLAN = Plan(train=(), test=(DAY,), warnings=())
RUN: Any = None
FILE = ArtifactRef(name="file", path="/nowhere/file", sha256="0" * 64)
RESULTS: dict[str, object] = {
    "validate": None,
    "publish_validation": None,
    "require_passed": (),
    "features": FILE,
    "split": SplitWindows(windows=FILE, summary={}),
    "baseline": {},
    "train": TrainedNetwork(
        model=FILE,
        history=(),
        best_epoch=1,
        precision="fp32",
        precision_reason="",
        resumed_from=None,
        mlflow_run_id="m",
    ),
    "export": ExportedNetwork(
        torchscript=FILE,
        onnx=FILE,
        calibration=FILE,
        opset=18,
        torchscript_error=0.0,
        onnx_error=0.0,
    ),
}


@pytest.fixture(autouse=True)
def _nothing_before_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    for stage, result in RESULTS.items():
        monkeypatch.setattr(candidate, stage, lambda *_, result=result: result)


def engine(name: str) -> BuiltEngine:
    return BuiltEngine(name=name, folder=None, unavailable=None, mlflow_run_id=None)


def test_engine_availability_is_checked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is an input of the stage, so a cached result cannot hide a change."""
    built: list[tuple[str, str | None]] = []

    def build(_run: Any, name: str, *inputs: Any) -> BuiltEngine:
        built.append((name, inputs[-1]))
        return engine(name)

    monkeypatch.setattr(candidate, "build_engine", build)
    spec = NightlySpec(benchmark=BenchmarkSpec(engines=("openvino-fp32", "tensorrt-fp16")))
    for reason in ("no GPU", None):
        monkeypatch.setattr(type(ENGINES["tensorrt-fp16"]), "availability", lambda _, r=reason: r)
        candidate.build_candidate(RUN, spec, PLAN)
    common: list[tuple[str, str | None]] = [("torch-fp32", None), ("openvino-fp32", None)]
    assert built == [*common, ("tensorrt-fp16", "no GPU"), *common, ("tensorrt-fp16", None)]


def test_an_engine_that_cannot_be_built_does_not_stop_the_nightly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(_run: Any, name: str, *_: Any) -> BuiltEngine:
        if name in broken:
            raise EngineError("the graph is refused", where="model.onnx")
        return engine(name)

    monkeypatch.setattr(candidate, "build_engine", build)
    names = ("onnxruntime-fp32", "openvino-fp32")
    spec = NightlySpec(benchmark=BenchmarkSpec(engines=names))
    broken = {"openvino-fp32"}
    made = candidate.build_candidate(RUN, spec, PLAN).engines
    assert {found.name: found.unavailable for found in made} == {
        "torch-fp32": None,
        "onnxruntime-fp32": None,
        "openvino-fp32": "not built: the graph is refused",
    }
    broken = {"torch-fp32"}  # no comparison is possible without it
    with pytest.raises(EngineError, match="refused"):
        candidate.build_candidate(RUN, spec, PLAN)
