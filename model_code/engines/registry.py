"""All engines, in the order of `settings.ENGINE_NAMES`."""

from model_code.engines.int8_engines import OnnxRuntimeInt8, OpenVinoInt8
from model_code.engines.onnxruntime_engine import OnnxRuntimeFloat32
from model_code.engines.openvino_engine import OpenVinoBFloat16, OpenVinoFloat32
from model_code.engines.protocol import Engine
from model_code.engines.pruned_engines import (
    OnnxRuntimePruned,
    OpenVinoPruned,
    OpenVinoPrunedBFloat16,
)
from model_code.engines.tensorrt_engine import TensorRTEngine
from model_code.engines.torch_compile import TorchCompiled, TorchCompiledHalf
from model_code.engines.torch_engines import TorchFloat32, TorchMixed
from model_code.export.pruning import not_prunable
from model_code.settings import AnyNetworkSpec, BoostingSpec

_ALL: tuple[Engine, ...] = (
    TorchFloat32(),
    TorchMixed(),
    TorchCompiled(),
    TorchCompiledHalf(),
    OnnxRuntimeFloat32(),
    OnnxRuntimeInt8(),
    OnnxRuntimePruned(),
    OpenVinoFloat32(),
    OpenVinoBFloat16(),
    OpenVinoInt8(),
    OpenVinoPruned(),
    OpenVinoPrunedBFloat16(),
    TensorRTEngine("tensorrt-fp32", "fp32"),
    TensorRTEngine("tensorrt-fp16", "fp16"),
    TensorRTEngine("tensorrt-bf16", "bf16"),
    TensorRTEngine("tensorrt-sparse", "fp16"),
)

ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ALL}


def available() -> dict[str, str | None]:
    """Every engine's name, with None or the reason why it cannot run on this machine."""
    return {name: engine.availability() for name, engine in ENGINES.items()}


def unsuitable(name: str, spec: AnyNetworkSpec) -> str | None:
    """Why an engine cannot be built from a network of this kind, on any machine; else None."""
    if name.split("-")[1] in ("pruned", "sparse"):
        return not_prunable(spec)
    precision = ENGINES[name].precision
    if isinstance(spec, BoostingSpec) and precision != "fp32":
        return f"a model of kind {spec.KIND} has no matrix product to compute in {precision}"
    return None
