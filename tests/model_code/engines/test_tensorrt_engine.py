import ctypes
import importlib
import shutil
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
import torch

from model_code.engines import tensorrt_engine
from model_code.engines.packaged import system
from model_code.engines.protocol import PARITY_WINDOWS
from model_code.engines.sidecar import EngineSidecar
from model_code.engines.tensorrt_builder import Plan
from model_code.engines.tensorrt_engine import TensorRTEngine, require_fit
from model_code.engines.tensorrt_graph import FP32_OPERATORS, to_half
from model_code.errors import EngineError, EngineUnavailableError, IntegrityError
from model_code.models import network
from model_code.settings import INPUT_NAME, OUTPUT_NAME


class Runtime:
    """A fake TensorRT that refuses every plan, as the real one refuses a plan of another GPU."""

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


class TypedGraph:
    """Runs the typed graph that the plan is built from, on ONNX Runtime instead of TensorRT."""

    def __init__(self, _trt, path, io):
        assert io == "FP16"
        self.session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def predict(self, x_BTF):
        half_BTF = x_BTF.astype(np.float16)
        return self.session.run([OUTPUT_NAME], {INPUT_NAME: half_BTF})[0].astype(np.float32)


def pretend(patch):
    """A machine that seems to have everything TensorRT needs."""
    patch.setattr(TensorRTEngine, "availability", lambda _self: None)
    patch.setattr(importlib, "import_module", lambda _name: LIBRARY)
    patch.setattr(tensorrt_engine, "compute_capability", lambda: "9.0")
    patch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")


@pytest.fixture(scope="module")
def built_once(source, tmp_path_factory):
    """An engine whose plan is the typed graph itself: all but the GPU's part is the product's."""
    root = tmp_path_factory.mktemp("tensorrt")
    given = []

    def build(_trt, graph, *, layer_type, sparse, timing_cache):
        assert (layer_type, sparse) == ("HALF", False)
        given.append(timing_cache)
        layers = {"HALF": 9, "FLOAT": 4}
        return Plan(graph, layers=layers, flags=(), timing_cache=b"timings")

    with pytest.MonkeyPatch.context() as patch:
        pretend(patch)
        patch.setenv("TICKLINE_HOME", str(root / "home"))
        patch.setattr(tensorrt_engine, "_PlanPredictor", TypedGraph)
        patch.setattr(tensorrt_engine, "build_plan", build)
        half().build(source, root / "first")
        half().build(source, root / "engine")
    assert given == [b"", b"timings"]  # the second build starts with the timings of the first
    return root / "engine"


@pytest.fixture
def built(built_once, tmp_path, monkeypatch):
    pretend(monkeypatch)
    Runtime.opened = 0
    return shutil.copytree(built_once, tmp_path / "engine")


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


def test_the_sidecar_ties_the_plan_to_its_gpu(built, source):
    sidecar = EngineSidecar.load(built)
    assert sidecar.fp32_operators == FP32_OPERATORS
    assert sidecar.inputs[0].dtype == sidecar.outputs[0].dtype == "FP16"
    assert sidecar.plan is not None
    assert (sidecar.plan.compute_capability, sidecar.plan.gpu) == ("9.0", "a GPU")
    assert sidecar.plan.profile == (1, 32, 64)
    assert sidecar.plan.workspace_bytes == 4 << 30
    assert sidecar.plan.layers == {"HALF": 9, "FLOAT": 4}
    assert "--onnx=typed.onnx" in sidecar.plan.trtexec
    assert (built / "typed.onnx").read_bytes() == to_half(source.onnx).SerializeToString()


def test_the_parity_error_is_the_plans_distance_from_eager_fp32(built, source):
    answer_BC = TypedGraph(None, built / "typed.onnx", "FP16").predict(source.windows())
    with torch.inference_mode():
        expected_BC = network.load(source.model)(torch.from_numpy(source.windows())).numpy()
    some = np.linspace(0, len(expected_BC) - 1, PARITY_WINDOWS).astype(np.int64)
    distance = np.abs(answer_BC - expected_BC)[some].max()
    assert 1e-5 < distance < 0.02  # FP16, not FP32
    assert EngineSidecar.load(built).parity_error == pytest.approx(distance, rel=0.05)


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
def test_a_mismatch_is_reported(built, version, capability, message):
    with pytest.raises(EngineError, match=message):
        require_fit(EngineSidecar.load(built), version, capability, built)


def test_another_system_is_reported_and_the_same_is_accepted(built):
    sidecar = EngineSidecar.load(built)
    require_fit(sidecar, "11.4.0", "9.0", built)
    foreign = sidecar.model_copy(update={"system": "Windows AMD64"})
    with pytest.raises(EngineError, match=f"system Windows AMD64, here {system()}"):
        require_fit(foreign, "11.4.0", "9.0", built)


def test_a_batch_above_the_profile_is_refused_before_it_reaches_the_gpu():
    predictor = object.__new__(tensorrt_engine._PlanPredictor)  # opening a plan needs a GPU
    with pytest.raises(EngineError, match="at most 64"):
        predictor.predict(np.zeros((65, 64, 16), np.float32))
