"""All engines, in the order of `settings.ENGINE_NAMES`."""

from model_code.engines.onnxruntime_engine import OnnxRuntimeFloat32
from model_code.engines.openvino_engine import OpenVinoBFloat16, OpenVinoFloat32
from model_code.engines.protocol import Engine
from model_code.engines.tensorrt_engine import TensorRTFloat16
from model_code.engines.torch_engines import TorchFloat32, TorchMixed

_ALL: tuple[Engine, ...] = (
    TorchFloat32(),
    TorchMixed(),
    OnnxRuntimeFloat32(),
    OpenVinoFloat32(),
    OpenVinoBFloat16(),
    TensorRTFloat16(),
)

ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ALL}


def available() -> dict[str, str | None]:
    """Every engine's name with None, or with the reason why it cannot run on this machine."""
    return {name: engine.availability() for name, engine in ENGINES.items()}
