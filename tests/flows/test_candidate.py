"""What goes into a candidate's engines."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows import candidate
from model_code.engines.registry import ENGINES
from model_code.settings import BenchmarkSpec, NightlySpec


def test_what_this_machine_lacks_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's key holds its inputs: a reason among them cannot come back from a cache."""
    built: list[tuple[str, str | None]] = []
    anything = SimpleNamespace(model=None, fn=None)
    for module, names in {
        candidate.data: ("build_features", "split_windows", "require_passed"),
        candidate.model: ("baseline", "train", "export_network"),
        candidate.report: ("publish_validation",),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, lambda *_: anything)
    build: Any = lambda _run, name, *inputs: built.append((name, inputs[-1]))  # noqa: E731
    monkeypatch.setattr(candidate.engines, "build_engine", build)
    spec = NightlySpec(benchmark=BenchmarkSpec(engines=("openvino-fp32", "tensorrt-fp16")))
    plan: Any = SimpleNamespace(days=(), simulated=True, test_date=None)
    run: Any = None
    for reason in ("no GPU", None):
        monkeypatch.setattr(type(ENGINES["tensorrt-fp16"]), "availability", lambda _, r=reason: r)
        candidate.build_candidate(run, spec, plan)
    common: list[tuple[str, str | None]] = [("torch-fp32", None), ("openvino-fp32", None)]
    assert built == [*common, ("tensorrt-fp16", "no GPU"), *common, ("tensorrt-fp16", None)]
