import ctypes
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model_code.engines import tensorrt_engine
from model_code.engines.packaged import system
from model_code.engines.sidecar import EngineSidecar
from model_code.engines.tensorrt_builder import Plan
from model_code.engines.tensorrt_engine import TensorRTEngine, require_fit
from model_code.engines.tensorrt_graph import FP32_OPERATORS
from model_code.errors import EngineError, EngineUnavailableError, IntegrityError
from model_code.models import network


class Runtime:
    """Stands for a TensorRT that refuses every plan, as it does a foreign one."""

    opened = 0

    def __init__(self, log):
        pass

    def deserialize_cuda_engine(self, _data):
        Runtime.opened += 1


LIBRARY = SimpleNamespace(
    __version__="11.4.0",
    Runtime=Runtime,
    Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda _self, _level: None}),
)


def half() -> TensorRTEngine:
    return TensorRTEngine("tensorrt-fp16", "fp16")


@pytest.fixture
def gpu(monkeypatch):
    """A machine that seems to have all TensorRT needs."""
    monkeypatch.setattr(TensorRTEngine, "availability", lambda _self: None)
    monkeypatch.setattr(importlib, "import_module", lambda _name: LIBRARY)
    monkeypatch.setattr(tensorrt_engine, "compute_capability", lambda: "9.0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    Runtime.opened = 0


@pytest.fixture
def built(gpu, source, tmp_path, monkeypatch):
    class Eager:
        def __init__(self, _trt, path, io):
            assert io == "FP16"
            assert path.read_bytes() == b"plan"

        def predict(self, x_BTF):
            with torch.inference_mode():
                return network.load(source.model)(torch.from_numpy(x_BTF)).numpy()

    given = []

    def build(_trt, _graph, *, layer_type, sparse, timing_cache):
        assert (layer_type, sparse) == ("HALF", False)
        given.append(timing_cache)
        return plan

    with monkeypatch.context() as patch:
        patch.setenv("TICKLINE_HOME", str(tmp_path / "home"))
        patch.setattr(tensorrt_engine, "_PlanPredictor", Eager)
        plan = Plan(b"plan", layers={"HALF": 9, "FLOAT": 4}, flags=(), timing_cache=b"timings")
        patch.setattr(tensorrt_engine, "build_plan", build)
        half().build(source, tmp_path / "first")
        half().build(source, tmp_path / "engine")
    assert given == [b"", b"timings"]  # the second build starts from the first's
    return tmp_path / "engine"


def test_availability_names_what_is_missing(monkeypatch):
    def absent(name):
        raise OSError(name)

    engine = half()
    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert engine.availability() == "no GPU (no NVIDIA driver, libcuda.so.1)"
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU that torch can use" in str(engine.availability())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(TensorRTEngine, "library", "tensorrt_that_is_not_there")
    assert "TensorRT is not installed" in str(engine.availability())
    monkeypatch.setattr(TensorRTEngine, "library", "json")
    assert engine.availability() is None


def test_the_sidecar_ties_the_plan_to_its_gpu(built):
    sidecar = EngineSidecar.load(built)
    assert sidecar.fp32_operators == FP32_OPERATORS
    assert sidecar.inputs[0].dtype == sidecar.outputs[0].dtype == "FP16"
    assert sidecar.parity_error == 0.0
    assert sidecar.plan is not None
    assert (sidecar.plan.compute_capability, sidecar.plan.gpu) == ("9.0", "a GPU")
    assert sidecar.plan.profile == (1, 32, 64)
    assert sidecar.plan.workspace_bytes == 4 << 30
    assert sidecar.plan.layers == {"HALF": 9, "FLOAT": 4}
    assert "--onnx=typed.onnx" in sidecar.plan.trtexec
    assert (built / "typed.onnx").stat().st_size > 1000


def test_a_plan_tensorrt_refuses_is_an_error(built):
    with pytest.raises(EngineError, match="refuses to deserialise"):
        half().load(built)
    assert Runtime.opened == 1


def test_tampered_bytes_are_never_deserialised(built):
    (built / "model.plan").write_bytes(b"plant")
    with pytest.raises(IntegrityError):
        half().load(built)
    assert Runtime.opened == 0


def test_a_plan_for_another_gpu_is_never_deserialised(built, monkeypatch):
    monkeypatch.setattr(tensorrt_engine, "compute_capability", lambda: "8.0")
    with pytest.raises(EngineError, match=r"GPU compute capability 9.0, here 8.0"):
        half().load(built)
    assert Runtime.opened == 0


def test_a_plan_is_not_loaded_without_a_driver(built, monkeypatch):
    monkeypatch.setattr(TensorRTEngine, "availability", lambda _self: "no driver")
    with pytest.raises(EngineUnavailableError, match="no driver"):
        half().load(built)
    assert Runtime.opened == 0


@pytest.mark.parametrize(
    ("version", "capability", "message"),
    [
        ("10.13.0", "9.0", r"TensorRT 11.4.0, here 10.13.0"),
        ("11.4.0", "8.6", r"GPU compute capability 9.0, here 8.6"),
    ],
)
def test_a_mismatch_is_named(built, version, capability, message):
    with pytest.raises(EngineError, match=message):
        require_fit(EngineSidecar.load(built), version, capability, built)


def test_another_system_is_named_and_the_same_is_accepted(built):
    sidecar = EngineSidecar.load(built)
    require_fit(sidecar, "11.4.0", "9.0", built)
    foreign = sidecar.model_copy(update={"system": "Windows AMD64"})
    with pytest.raises(EngineError, match=f"system Windows AMD64, here {system()}"):
        require_fit(foreign, "11.4.0", "9.0", built)


def test_the_largest_batch_is_a_clear_limit():
    from model_code.engines.protocol import check_windows

    with pytest.raises(EngineError, match="at most 64"):
        check_windows(np.zeros((65, 64, 16), np.float32), 64)
