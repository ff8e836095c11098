"""OpenVINO on the CPU, FP32 and BF16, with explicit and verified precision.

By default OpenVINO uses BF16 if the processor supports it, otherwise FP32. The precision hint is
therefore explicit, and the precision of the compiled graph is verified.

The graph is compiled twice, for any batch and for batch 1. With fixed shapes OpenVINO removes
reshapes and slices and plans its buffers in advance.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
from numpy.typing import NDArray

from model_code.engines.packaged import PackagedEngine
from model_code.engines.protocol import EngineSource, Predictor, check_windows
from model_code.errors import EngineError
from model_code.settings import CLASS_COUNT, FEATURE_COUNT, SEQUENCE_LENGTH

# most of the arithmetic: their precision is the engine's precision
_MATRIX_LAYERS = ("FullyConnected", "MatMul", "Convolution")
NO_BF16 = "CPU has no native BF16 (AVX512_BF16 or AMX)"


def compile_graph(path: Path, hint: str, threads: int, *, single: bool = False) -> Any:
    """Compile an ONNX graph for the latency of single requests.

    Args:
        path: ONNX file.
        hint: OpenVINO's name of the precision, "f32" or "bf16".
        threads: inference threads.
        single: fix the batch at 1.

    Raises:
        EngineError: the graph is refused.
    """
    try:
        core = ov.Core()
        graph = core.read_model(path)
        if single:
            graph.reshape([1, SEQUENCE_LENGTH, FEATURE_COUNT])
        return core.compile_model(
            graph,
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


def matrix_precisions(compiled: Any) -> dict[str, str]:
    """Precision of each matrix product of the compiled graph, by name."""
    found = {}
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if facts["layerType"].astype(str) in _MATRIX_LAYERS:
            found[node.get_friendly_name()] = facts["runtimePrecision"].astype(str)
    return found


def require_precision(compiled: Any, hint: str, path: Path) -> None:
    """Raise if a matrix product is computed in another precision; a graph of trees has none.

    Raises:
        EngineError: names the precisions found.
    """
    found = set(matrix_precisions(compiled).values())
    if not found and not _has_products(path):
        return
    if found != {hint}:
        raise EngineError(
            f"OpenVINO computes matrix products in "
            f"{', '.join(sorted(found)) or 'an unknown precision'} instead of {hint}",
            where=str(path),
            remedy="use openvino-fp32 on this processor",
        )


def _has_products(path: Path) -> bool:
    kinds = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
    return bool(kinds & {"Conv", "Gemm", "MatMul"})


class OpenVinoPredictor:
    """One graph compiled twice; batch 1 uses buffers set once."""

    def __init__(self, compiled: Any, single: Any) -> None:
        self._request, self._single = compiled.create_infer_request(), single.create_infer_request()
        self._x_BTF = np.zeros((1, SEQUENCE_LENGTH, FEATURE_COUNT), np.float32)
        self._logits_BC = np.zeros((1, CLASS_COUNT), np.float32)
        self._single.set_input_tensor(ov.Tensor(self._x_BTF, shared_memory=True))
        self._single.set_output_tensor(ov.Tensor(self._logits_BC, shared_memory=True))

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits; see `protocol.Predictor`."""
        check_windows(x_BTF)
        if len(x_BTF) == 1:
            self._x_BTF[:] = x_BTF
            self._single.infer()
            return self._logits_BC.copy()
        self._request.infer([x_BTF], share_inputs=True)
        logits_BC: NDArray[np.float32] = self._request.get_output_tensor(0).data.copy()
        return logits_BC


class OpenVinoEngine(PackagedEngine):
    """Base class: compiles the file in precision `hint` and verifies it."""

    device = "cpu"
    library, file = "openvino", "model.onnx"
    hint = "f32"

    def availability(self) -> str | None:
        """FP32 is always available, BF16 if OpenVINO reports it for this processor."""
        if self.hint != "bf16":
            return None
        capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return None if "BF16" in capabilities else NO_BF16

    def _export(self, source: EngineSource) -> Path:
        return source.onnx

    def _open(self, path: Path, threads: int) -> Predictor:
        forms = [compile_graph(path, self.hint, threads, single=single) for single in (False, True)]
        for compiled in forms:
            self._verify(compiled, path)
        return OpenVinoPredictor(*forms)

    def _verify(self, compiled: Any, path: Path) -> None:
        require_precision(compiled, self.hint, path)


class OpenVinoFloat32(OpenVinoEngine):
    """FP32 on any x86-64 or Arm CPU."""

    name, precision = "openvino-fp32", "fp32"


class OpenVinoBFloat16(OpenVinoEngine):
    """BF16 on processors with native BF16."""

    name, precision, hint = "openvino-bf16", "bf16", "bf16"
