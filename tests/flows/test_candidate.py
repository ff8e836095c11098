"""What goes into a candidate's engines."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows import candidate
from model_code.engines.registry import ENGINES
from model_code.errors import EngineError
from model_code.settings import BenchmarkSpec, NightlySpec
from tasks.nightly.records import BuiltEngine

PLAN: Any = SimpleNamespace(days=(), simulated=True, test_date=None)
RUN: Any = None


@pytest.fixture(autouse=True)
def _nothing_before_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    anything = SimpleNamespace(model=None, fn=None)
    for module, names in {
        candidate.data: ("build_features", "split_windows", "require_passed"),
        candidate.model: ("baseline", "train", "export_network"),
        candidate.report: ("publish_validation",),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, lambda *_: anything)


def test_what_this_machine_lacks_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's key holds its inputs: a reason among them cannot come back from a cache."""
    built: list[tuple[str, str | None]] = []
    build: Any = lambda _run, name, *inputs: built.append((name, inputs[-1]))  # noqa: E731
    monkeypatch.setattr(candidate.engines, "build_engine", build)
    spec = NightlySpec(benchmark=BenchmarkSpec(engines=("openvino-fp32", "tensorrt-fp16")))
    for reason in ("no GPU", None):
        monkeypatch.setattr(type(ENGINES["tensorrt-fp16"]), "availability", lambda _, r=reason: r)
        candidate.build_candidate(RUN, spec, PLAN)
    common: list[tuple[str, str | None]] = [("torch-fp32", None), ("openvino-fp32", None)]
    assert built == [*common, ("tensorrt-fp16", "no GPU"), *common, ("tensorrt-fp16", None)]


def test_an_engine_that_cannot_be_built_does_not_cost_the_night(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(_run: Any, name: str, *_: Any) -> BuiltEngine:
        if name in broken:
            raise EngineError("the graph is refused", where="model.onnx")
        return BuiltEngine(name=name, folder=None, unavailable=None, mlflow_run_id=None)

    monkeypatch.setattr(candidate.engines, "build_engine", build)
    names = ("onnxruntime-fp32", "openvino-fp32")
    spec = NightlySpec(benchmark=BenchmarkSpec(engines=names))
    broken = {"openvino-fp32"}
    made = candidate.build_candidate(RUN, spec, PLAN).engines
    assert {engine.name: engine.unavailable for engine in made} == {
        "torch-fp32": None,
        "onnxruntime-fp32": None,
        "openvino-fp32": "not built: the graph is refused",
    }
    broken = {"torch-fp32"}  # nothing can be compared without it
    with pytest.raises(EngineError, match="refused"):
        candidate.build_candidate(RUN, spec, PLAN)
