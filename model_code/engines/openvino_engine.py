"""OpenVINO on the CPU, FP32 and BF16, with the precision asked for and proved.

Left alone, OpenVINO takes BF16 by itself where the processor has it, and FP32 where it has not,
whatever the name on the tin; so the hint is explicit and the compiled graph is read back.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from model_code.engines.packaged import PackagedEngine
from model_code.engines.protocol import EngineSource, Predictor, check_windows
from model_code.errors import EngineError

# where the arithmetic is: their precision is the engine's
_MATRIX_LAYERS = ("FullyConnected", "MatMul", "Convolution")


def compile_graph(path: Path, hint: str, threads: int) -> Any:
    """Compile an ONNX graph for one-at-a-time latency.

    Args:
        path: ONNX file.
        hint: OpenVINO's name of the precision, "f32" or "bf16".
        threads: inference threads.

    Raises:
        EngineError: the graph is refused, or was compiled to another precision.
    """
    try:
        core = ov.Core()
        compiled = core.compile_model(
            core.read_model(path),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
            },
        )
    except RuntimeError as error:
        raise EngineError(f"OpenVINO refuses the graph: {error}", where=str(path)) from error
    found = effective_precisions(compiled)
    if found != {hint}:
        raise EngineError(
            f"OpenVINO was asked for {hint} and computes matrix products in "
            f"{', '.join(sorted(found)) or 'nothing recognisable'}",
            where=str(path),
            remedy="use openvino-fp32 on this processor",
        )
    return compiled


def effective_precisions(compiled: Any) -> set[str]:
    """Precisions in which the compiled graph computes its matrix products."""
    found = set()
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if facts["layerType"].astype(str) in _MATRIX_LAYERS:
            found.add(facts["runtimePrecision"].astype(str))
    return found


class _OpenVinoPredictor:
    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(x_BTF)
        self._request.infer([x_BTF], share_inputs=True)
        logits_BC: NDArray[np.float32] = self._request.get_output_tensor(0).data.copy()
        return logits_BC


class _OpenVinoEngine(PackagedEngine):
    device = "cpu"
    library, file = "openvino", "model.onnx"
    hint: str

    def _export(self, source: EngineSource) -> Path:
        return source.onnx

    def _open(self, path: Path, threads: int) -> Predictor:
        return _OpenVinoPredictor(compile_graph(path, self.hint, threads))


class OpenVinoFloat32(_OpenVinoEngine):
    """FP32 on any x86-64 or Arm CPU."""

    name, precision, hint = "openvino-fp32", "fp32", "f32"

    def availability(self) -> str | None:
        """Always available."""
        return None


class OpenVinoBFloat16(_OpenVinoEngine):
    """BF16 where the processor computes it natively."""

    name, precision, hint = "openvino-bf16", "bf16", "bf16"

    def availability(self) -> str | None:
        """OpenVINO's own word on the processor."""
        capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return None if "BF16" in capabilities else "CPU has no native BF16 (AVX512_BF16 or AMX)"
