import ctypes
import importlib
import shutil
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
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
from model_code.engines.tensorrt_inspector import BuiltLayer, products_of
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

    built = "HALF"

    def __init__(self, _trt, path, io):
        assert io == "FP16"
        self.session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        self.graph = onnx.load(path)

    def layers(self, _trt):
        """What TensorRT would report of an engine in which every product is in FP16."""
        return tuple(
            BuiltLayer(name, frozenset({name}), frozenset({TypedGraph.built}), TypedGraph.built)
            for name in products_of(self.graph)
        )

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
    assert sidecar.plan.built_layers == {"HALF": 14}
    assert "--onnx=typed.onnx" in sidecar.plan.trtexec
    assert (built / "timing.cache").read_bytes() == b"timings"
    assert (built / "typed.onnx").read_bytes() == to_half(source.onnx).SerializeToString()


def test_a_plan_whose_products_were_built_in_fp32_is_refused(source, tmp_path, monkeypatch):
    """Although the parsed network has layers in FP16."""
    pretend(monkeypatch)
    plan = Plan(b"", layers={"HALF": 9, "FLOAT": 4}, flags=(), timing_cache=b"")
    graph = to_half(source.onnx).SerializeToString()
    monkeypatch.setattr(
        tensorrt_engine, "build_plan", lambda *_args, **_more: replace(plan, data=graph)
    )
    monkeypatch.setattr(tensorrt_engine, "_PlanPredictor", TypedGraph)
    monkeypatch.setattr(TypedGraph, "built", "FLOAT")
    with pytest.raises(EngineError, match="layers of the built engine are not computed in HALF"):
        half().build(source, tmp_path / "engine")
    assert not (tmp_path / "engine" / "engine.json").exists()


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_windows_that_are_not_finite_are_refused_before_they_reach_the_gpu(value):
    predictor = object.__new__(tensorrt_engine._PlanPredictor)
    with pytest.raises(EngineError, match="NaN or infinity"):
        predictor.predict(np.full((1, 64, 16), value, np.float32))


class Context:
    """An execution context on the CPU: logits are the first two features of the newest row."""

    def __init__(self):
        self.address: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_tensor_address(self, name, pointer):
        assert name not in self.address, "memory is allocated once"
        self.address[name] = pointer

    def set_input_shape(self, _name, shape):
        self.shape = shape

    def execute_async_v3(self, _stream):
        def memory(name, shape):
            kind = ctypes.c_uint16 * int(np.prod(shape))
            bits = np.ctypeslib.as_array(kind.from_address(self.address[name]))
            return bits.view(np.float16).reshape(shape)

        memory(OUTPUT_NAME, (self.shape[0], 2))[:] = memory(INPUT_NAME, self.shape)[:, -1, :2]
        return True


def test_every_batch_uses_the_memory_that_was_allocated_once(tmp_path, monkeypatch):
    context = Context()
    engine = SimpleNamespace(create_execution_context=lambda: context)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda _data: engine)
    trt = SimpleNamespace(Runtime=lambda _log: runtime, Logger=LIBRARY.Logger)
    (tmp_path / "model.plan").write_bytes(b"plan")
    monkeypatch.setattr(tensorrt_engine, "DEVICE", "cpu")
    monkeypatch.setattr(torch.cuda, "Stream", lambda: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    predictor = tensorrt_engine._PlanPredictor(trt, tmp_path / "model.plan", "FP16")
    x_BTF = np.random.default_rng(0).normal(size=(64, 64, 16)).astype(np.float32)
    answers = [predictor.predict(x_BTF[:count]) for count in (1, 64, 5)]
    for answer_BC in answers:
        expected_BC = x_BTF[: len(answer_BC), -1, :2].astype(np.float16)
        np.testing.assert_array_equal(answer_BC, expected_BC.astype(np.float32))
    assert set(context.address) == {INPUT_NAME, OUTPUT_NAME}
