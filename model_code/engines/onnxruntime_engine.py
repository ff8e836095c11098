"""ONNX Runtime on the CPU, FP32.

Shapes: B batch, T = 64 steps, F = 16 features, C = 2 classes.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from model_code.engines.packaged import PackagedEngine
from model_code.engines.protocol import EngineSource, Predictor, check_windows
from model_code.errors import EngineError
from model_code.settings import INPUT_NAME, OUTPUT_NAME


class _OnnxPredictor:
    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(self, x_BTF: NDArray[np.float32]) -> NDArray[np.float32]:
        check_windows(x_BTF)
        logits_BC: NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: x_BTF})[0]
        return logits_BC


class OnnxRuntimeFloat32(PackagedEngine):
    """ONNX Runtime's CPU provider, all graph optimisations, sequential execution."""

    name, precision, device = "onnxruntime-fp32", "fp32", "cpu"
    library, file = "onnxruntime", "model.onnx"

    def availability(self) -> str | None:
        """Always available."""
        return None

    def _export(self, source: EngineSource) -> Path:
        return source.onnx

    def _open(self, path: Path, threads: int) -> Predictor:
        return open_graph(path, threads)


def open_graph(path: Path, threads: int) -> Predictor:
    """Open an exported graph that has no engine of its own, a registered model's for example.

    Raises:
        EngineError: ONNX Runtime refuses it.
    """
    try:
        return _OnnxPredictor(path, threads)
    except Exception as error:  # its exceptions share no public base class
        raise EngineError(f"ONNX Runtime refuses the graph: {error}", where=str(path)) from error
